"""Training and evaluation as a person runs them."""

import json
import re
from pathlib import Path

import torch
from nemo.collections.asr.metrics.wer import word_error_rate

from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.adapters.users import adapter_name_for_user
from nemo_ds2_adapters.formats.reading import inspect_adapter

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
        "model.adapter.folds=0",  # the recordings are noise: cross-validation would keep the base
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
    kept = r"adapter user_john: (\d+ epochs, validation WER .+ % -> .+ %, \d+ s|no epoch was better than the start.*)"
    assert re.fullmatch(kept, lines[0])
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
    assert re.fullmatch(r"adapter user_j: 2 epochs, \d+ s", lines[0])
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


def test_a_persons_head(
    run_script, call_script, restore, config, base_nemo: Path, manifest: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    """By user id, in the decoder; then somebody else's adapter starts from its file, and is evaluated."""
    finished = run_script(
        TRAIN,
        f"model.nemo_model={base_nemo}",
        'model.adapter.user_id="홍길동"',
        "model.adapter.adapter_module_name=decoder",
        "model.adapter.adapter_type=mlp_head",
        "model.adapter.mlp_head.hidden_dims=[8,6]",
        f"model.train_ds.manifest_filepath={manifest}",
        "trainer.max_epochs=1",
        "model.adapter.folds=0",
        "exp_manager.exp_dir=.",
        "exp_manager.version=run",
    )
    assert finished.returncode == 0, finished.stderr
    assert "adapter 홍길동" in finished.stdout
    checkpoints = tmp_path / "ASR-Adapter" / "run" / "checkpoints"
    name = adapter_name_for_user("홍길동")
    model = restore(checkpoints / "ASR-Adapter.nemo")
    assert list_adapters(model) == model.decoder.get_enabled_adapters() == [name]
    assert_equal(base_weights(restore(base_nemo)), base_weights(model))
    assert model.decoder.enabled_head().module[-1].weight.any()
    assert inspect_adapter(checkpoints / "adapters.pt")["metadata"]["user_id"] == "홍길동"

    monkeypatch.chdir(tmp_path)
    config.model.adapter.adapter_name = "???"
    config.model.adapter.user_id = "a/b:c+d"
    config.model.adapter.init_from = str(checkpoints / "adapters.pt")
    config.model.validation_ds.manifest_filepath = None
    config.model.optim.lr = 0.0
    config.model.adapter.folds = 0
    del config.model.optim.sched
    config.exp_manager.version = "second"
    call_script(TRAIN, config)
    second = tmp_path / "experiments" / "ASR-Adapter" / "second" / "checkpoints" / "ASR-Adapter.nemo"
    copy = adapter_weights(restore(second), adapter_name_for_user("a/b:c+d"))
    assert_equal(dict(zip(copy, adapter_weights(model, name).values())), copy)
    config.model.nemo_model = str(second)
    call_script(EVALUATE, config)
    assert "a/b:c+d: WER " in capsys.readouterr().out
    assert (tmp_path / f"eval_{adapter_name_for_user('a/b:c+d')}.jsonl").is_file()
