"""Training a base model as a person does."""

from pathlib import Path

import torch

SCRIPT = "asr_ctc/train_deepspeech2.py"
TINY = ("model.encoder.n_layers=1", "model.encoder.d_model=8", "model.encoder.conv_channels=[2]")


def train(run_script, manifest: Path, tmp_path: Path, *overrides: str) -> list[str]:
    finished = run_script(
        SCRIPT,
        *TINY,
        f"model.train_ds.manifest_filepath={manifest}",
        f"model.validation_ds.manifest_filepath={manifest}",
        "model.train_ds.batch_size=2",
        "model.optim.sched.warmup_steps=1",
        f"exp_manager.exp_dir={tmp_path}",
        "name=tiny",
        *overrides,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip().splitlines()


def test_train_resume_and_start_from(run_script, restore, manifest: Path, tmp_path: Path) -> None:
    nemo = tmp_path / "tiny" / "checkpoints" / "tiny.nemo"
    *_, score, path = train(run_script, manifest, tmp_path, "trainer.max_epochs=2")
    assert score.startswith("best validation WER ")
    assert path.split() == ["model", str(nemo)]
    assert restore(nemo).encoder.n_layers == 1

    train(run_script, manifest, tmp_path, "trainer.max_epochs=3")
    (last,) = (tmp_path / "tiny" / "checkpoints").glob("*-last.ckpt")
    assert torch.load(last, weights_only=False)["global_step"] == 3 * 2  # not 3 epochs more

    *_, path = train(
        run_script, manifest, tmp_path, "name=next", f"init_from_nemo_model={nemo}", "trainer.max_epochs=1",
        "model.optim.lr=0", "~model.optim.sched",
    )  # fmt: skip
    first, second = restore(nemo).state_dict(), restore(Path(path.split()[1])).state_dict()
    weights = [key for key in first if "running" not in key and "num_batches" not in key]
    assert all(torch.equal(first[key], second[key]) for key in weights)


def test_wrong_input(run_script, manifest: Path, tmp_path: Path) -> None:
    finished = run_script(
        SCRIPT, f"model.train_ds.manifest_filepath={manifest}", "model.validation_ds.manifest_filepath=no.json"
    )
    assert finished.returncode == 1
    assert (
        finished.stderr.strip().splitlines()[-1]
        == "error: model.validation_ds.manifest_filepath=no.json: no such file"
    )
    assert not (tmp_path / "nemo_experiments").exists()
