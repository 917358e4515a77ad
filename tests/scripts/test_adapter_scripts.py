"""Training and evaluation as a person runs them."""

import json
from pathlib import Path

import torch
from nemo.collections.asr.metrics.wer import word_error_rate

from nemo_ds2_adapters.adapters import list_adapters

TRAIN, EVALUATE = "asr_adapters/train_asr_adapter.py", "asr_adapters/eval_asr_adapter.py"


def train(run_script, model: Path, name: str, manifest: Path, *overrides: str) -> tuple[Path, list[str]]:
    """Run the training script; the adapted model and the last lines on the screen."""
    finished = run_script(
        TRAIN,
        f"model.nemo_model={model}",
        f"model.adapter.adapter_name={name}",
        f"model.train_ds.manifest_filepath={manifest}",
        "model.train_ds.batch_size=2",
        "trainer.max_epochs=2",
        f"exp_manager.exp_dir={model.parent}",
        f"exp_manager.name={name}",
        "exp_manager.version=run",
        *overrides,
    )
    assert finished.returncode == 0, finished.stderr
    return model.parent / name / "run" / "checkpoints" / f"{name}.nemo", finished.stdout.strip().splitlines()[-3:]


def adapter_weights(model: torch.nn.Module, name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in model.state_dict().items() if f".adapter_layer.{name}." in key}


def base_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value for key, value in model.state_dict().items() if ".adapter_layer." not in key}


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys() and first
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def test_train_twice_then_evaluate(run_script, restore, base_nemo: Path, manifest: Path, tmp_path: Path) -> None:
    one_path, lines = train(
        run_script, base_nemo, "user_john", manifest, f"model.validation_ds.manifest_filepath={manifest}"
    )
    assert lines[0].startswith("adapter user_john: validation WER ") and "->" in lines[0]
    assert str(one_path) in lines[1] and one_path.is_file()
    assert torch.load(one_path.parent / "adapters.pt", weights_only=True)
    assert len(list(one_path.parent.glob("*.nemo"))) == 1

    two_path, lines = train(
        run_script,
        one_path,
        "user_j",
        manifest,
        "model.adapter.adapter_type=linear",
        "model.adapter.linear.layers=all",
    )
    assert lines[0] == "adapter user_j trained"
    base, one, two = restore(base_nemo), restore(one_path), restore(two_path)
    assert list_adapters(two) == ["user_john", "user_j"]
    assert_equal(base_weights(base), base_weights(two))
    assert_equal(adapter_weights(one, "user_john"), adapter_weights(two, "user_john"))
    assert any(value.abs().sum() > 0 for key, value in adapter_weights(two, "user_j").items() if "module.3" in key)

    for name in ("user_john", "null"):
        finished = run_script(
            EVALUATE,
            f"model.nemo_model={two_path}",
            f"model.adapter.adapter_name={name}",
            f"model.test_ds.manifest_filepath={manifest}",
        )
        assert finished.returncode == 0, finished.stderr
        label = "base" if name == "null" else name
        result = finished.stdout.strip().splitlines()[-2]
        lines = [json.loads(line) for line in (tmp_path / f"eval_{label}.jsonl").read_text().splitlines()]
        assert [line["reference"] for line in lines] == [
            json.loads(line)["text"] for line in manifest.read_text().splitlines()
        ]
        wer = word_error_rate([line["hypothesis"] for line in lines], [line["reference"] for line in lines])
        assert result.startswith(f"{label}: WER {100 * wer:.2f} %, CER ")


def test_continue_an_adapter_with_the_tri_stage_schedule(run_script, restore, base_nemo: Path, manifest: Path) -> None:
    first, _ = train(run_script, base_nemo, "user_john", manifest)
    schedule = "{name: TriStage, init_lr: 1e-6, peak_lr: 0.01, final_lr: 1e-5, warmup_steps: 2}"
    second, _ = train(
        run_script,
        first,
        "user_john",
        manifest,
        "model.adapter.continue_existing=true",
        "~model.optim.sched",
        f"+model.optim.sched={schedule}",
    )
    before, after = restore(first), restore(second)
    assert list_adapters(after) == ["user_john"]
    assert_equal(base_weights(before), base_weights(after))
    old = adapter_weights(before, "user_john")
    assert any(not torch.equal(value, old[key]) for key, value in adapter_weights(after, "user_john").items())
