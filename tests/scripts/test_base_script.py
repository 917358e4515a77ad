"""Training a base model as a person does."""

import json
from pathlib import Path

import numpy as np
import soundfile
import torch

from nemo_ds2_adapters.streaming.features import PendingSamples, step_features

SCRIPT = "asr_ctc/train_deepspeech2.py"
TINY = ("model.encoder.n_layers=1", "model.encoder.d_model=8", "model.encoder.conv_channels=[2]")


def train(run_script, manifest: Path, tmp_path: Path, *overrides: str, config: str = "deepspeech2_small") -> list[str]:
    finished = run_script(
        SCRIPT,
        f"--config-name={config}",
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


def test_model_for_streams(run_script, restore, manifest: Path, tmp_path: Path) -> None:
    """The features' statistics are those of the recordings, and a stream gives what the whole recording gives."""
    *_, path = train(
        run_script, manifest, tmp_path, "trainer.max_epochs=1", "model.encoder.lookahead_context=3",
        config="deepspeech2_streaming",
    )  # fmt: skip
    model = restore(Path(path.split()[1])).eval()
    entries = [json.loads(line) for line in manifest.read_text().splitlines()]
    audio = [soundfile.read(manifest.parent / entry["audio_filepath"], dtype="float32")[0] for entry in entries]
    run = [model.preprocessor(input_signal=torch.tensor(one)[None], length=torch.tensor([len(one)])) for one in audio]
    every = torch.cat([features[0, :, : int(frames)] for features, frames in run], dim=1)
    torch.testing.assert_close(every.mean(1), torch.zeros(len(every)), atol=1e-3, rtol=0)
    torch.testing.assert_close(every.std(1), torch.ones(len(every)), atol=1e-2, rtol=0)

    samples, pending, state, outputs = torch.tensor(audio[0]), [PendingSamples()], model.encoder.start(1), []
    chunks = samples.split(1280)
    with torch.no_grad():
        for i, chunk in enumerate(chunks):
            last = i == len(chunks) - 1
            features, frames, pending = step_features(model.preprocessor, pending, [chunk], [last])
            encoded, lengths, state = model.encoder.step(features, frames, state, torch.tensor([last]))
            outputs.append(model.decoder(encoder_output=encoded)[0, : int(lengths)])
        whole, lengths, _ = model(input_signal=samples[None], input_signal_length=torch.tensor([len(samples)]))
    torch.testing.assert_close(torch.cat(outputs), whole[0, : int(lengths)], atol=1e-4, rtol=1e-4)


def test_bf16(run_script, restore, manifest: Path, tmp_path: Path) -> None:
    """Arithmetic in bf16, weights in fp32: not what fp32 gives, but near it."""
    weights = []
    for name, precision in (("full", "32"), ("less", "bf16-mixed")):
        overrides = ("trainer.max_epochs=1", f"name={name}", "seed=1", "model.preprocessor.dither=0")
        *_, path = train(run_script, manifest, tmp_path, *overrides, f"trainer.precision={precision}")
        weights.append(restore(Path(path.split()[1])).encoder.state_dict())
    assert {value.dtype for value in weights[1].values() if value.is_floating_point()} == {torch.float32}
    differences = [(one - other).abs().max() for one, other in zip(*(each.values() for each in weights))]
    assert 0 < max(differences) < 0.1


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
