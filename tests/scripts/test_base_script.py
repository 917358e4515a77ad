"""Training a base model as a person does."""

import json
from pathlib import Path

import numpy as np
import soundfile
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


def test_channels_are_averaged(run_script, manifest: Path, tmp_path: Path) -> None:
    """NeMo's loader pads two channels of T samples to [T, T]."""
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for i, line in enumerate(lines):
        samples, rate = soundfile.read(line["audio_filepath"])
        line["audio_filepath"] = str(tmp_path / f"{i}.wav")
        soundfile.write(line["audio_filepath"], np.stack([samples, samples], axis=1), rate)
    (tmp_path / "stereo.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    *_, score, _ = train(run_script, tmp_path / "stereo.json", tmp_path, "trainer.max_epochs=1")
    assert score.startswith("best validation WER ")
