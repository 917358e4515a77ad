"""How the committed demo base models were made, `make demo-base ARGS="--an4 DIR"`.

1. `train_deepspeech2.py` on AN4 alone, in two parts,
2. the same script from there on AN4 plus synthetic voices, none of them a demo user's,
3. the result without the paths of the machine it was trained on, and its scores beside it.

With `--streaming` the one that hears no future, for streams: from the first one's weights, on the same speech.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from nemo.collections.asr.metrics.wer import word_error_rate
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import OmegaConf

import nemo_ds2_adapters  # noqa: F401  # makes the model's classes known to NeMo
from demo.corpus import write_base_corpus
from demo.run import BASE_MODEL, STREAM_BASE_MODEL

TRAIN_SCRIPT = Path(__file__).parents[1] / "examples" / "asr" / "asr_ctc" / "train_deepspeech2.py"
MILD_AUGMENTATION = (
    "model.spec_augment.freq_width=10",
    "model.spec_augment.time_width=0.05",
    "model.train_ds.augmentor.speed.prob=0.5",
    "model.train_ds.augmentor.speed.min_speed_rate=0.9",
    "model.train_ds.augmentor.speed.max_speed_rate=1.1",
)
# Each training starts from where the one before was. Those on AN4 alone are cut off in the middle of their
# learning-rate schedule, the last one, with the synthetic voices, anneals it.
AN4_TRAININGS = {
    "an4_strong": ("trainer.max_epochs=30", "model.optim.sched.max_steps=1890"),
    "an4_mild": (
        "model.train_ds.shorter_first=false",
        *MILD_AUGMENTATION,
        "trainer.max_epochs=22",
        "model.optim.lr=0.001",
        "model.optim.sched.max_steps=1680",
    ),
}
DEMO_TRAINING = (
    "model.train_ds.shorter_first=false",
    "trainer.max_epochs=8",
    "model.optim.lr=0.0007",
    "model.optim.sched.warmup_steps=20",
)
STREAMING_TRAINING = (
    "--config-name=deepspeech2_streaming",
    f"init_from_nemo_model={BASE_MODEL}",
    "model.train_ds.shorter_first=false",
    *MILD_AUGMENTATION,
    "trainer.max_epochs=30",
    "trainer.precision=bf16-mixed",
    "model.optim.sched.warmup_steps=50",
)
SYNTHETIC_UTTERANCES = 500
DATA_SECTIONS = ("train_ds", "validation_ds", "test_ds")


def make_base(an4: Path, work_dir: Path, streaming: bool) -> None:
    """Train a demo base model and write it where the demo looks for it.

    Args:
        an4: directory with `base_train.json` and `base_val.json`, NeMo manifests of CMU AN4.
        work_dir: directory for the synthetic corpus and the experiments; interrupted trainings resume from it.
        streaming: the one for streams, from the other.

    Raises:
        FileNotFoundError: a manifest is missing.
        subprocess.CalledProcessError: a training failed.
    """
    train, validation = an4 / "base_train.json", an4 / "base_val.json"
    for manifest in (train, validation):
        if not manifest.is_file():
            raise FileNotFoundError(f"{manifest} is missing: give the directory of AN4's manifests with --an4")
    synthetic = work_dir / "synthetic"
    write_base_corpus(synthetic, utterances=SYNTHETIC_UTTERANCES)
    both = [train, synthetic / "train.json"]
    held_out = {"an4": validation, "synthetic": synthetic / "validation.json"}
    if streaming:
        _publish(_train(work_dir, "stream", both, validation, *STREAMING_TRAINING), STREAM_BASE_MODEL, held_out)
        return
    start: tuple[str, ...] = ()
    for name, settings in AN4_TRAININGS.items():
        start = (f"init_from_nemo_model={_train(work_dir, name, [train], validation, *start, *settings)}",)
    _publish(_train(work_dir, "demo", both, validation, *start, *DEMO_TRAINING), BASE_MODEL, held_out)


def _train(work_dir: Path, name: str, train: list[Path], validation: Path, *settings: str) -> Path:
    command = [
        sys.executable,
        str(TRAIN_SCRIPT),
        f"name={name}",
        f"model.train_ds.manifest_filepath='{','.join(map(str, train))}'",
        f"model.validation_ds.manifest_filepath={validation}",
        f"exp_manager.exp_dir={work_dir}",
        *settings,
    ]
    subprocess.run(command, check=True)
    return work_dir / name / "checkpoints" / f"{name}.nemo"


def _publish(trained: Path, published: Path, validation: dict[str, Path]) -> None:
    """Save the model without the training machine's paths, and its greedy word error rates beside it."""
    model = EncDecCTCModel.restore_from(str(trained), map_location="cpu")
    for section in DATA_SECTIONS:
        if section in model.cfg:
            OmegaConf.set_struct(model.cfg, False)
            model.cfg[section].manifest_filepath = None
    model.save_to(str(published))
    scores = {name: round(_word_error_rate(model, manifest), 4) for name, manifest in validation.items()}
    published.with_suffix(".json").write_text(json.dumps({"wer": scores}, indent=2) + "\n", "utf-8")
    print(f"{published}: {published.stat().st_size / 1e6:.1f} MB, word error rates {scores}")


def _word_error_rate(model: EncDecCTCModel, manifest: Path) -> float:
    entries = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
    audio = [str(manifest.parent / entry["audio_filepath"]) for entry in entries]
    hypotheses = model.transcribe(audio, batch_size=16, verbose=False)
    return word_error_rate([h.text for h in hypotheses], [entry["text"] for entry in entries])


def main() -> None:
    """Make a demo base from the command line."""
    parser = argparse.ArgumentParser(description="Train a demo base model.")
    parser.add_argument("--an4", type=Path, required=True, help="directory of AN4's manifests")
    parser.add_argument("--streaming", action="store_true", help="the one for streams, from the other")
    parser.add_argument("--work-dir", type=Path, default=Path("demo_base"), help="directory for everything in between")
    arguments = parser.parse_args()
    try:
        make_base(arguments.an4.resolve(), arguments.work_dir.resolve(), arguments.streaming)
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
