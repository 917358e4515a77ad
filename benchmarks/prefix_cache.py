"""Training an adapter on stored prefix activations, against NeMo's way: the frozen part anew in every epoch.

python benchmarks/prefix_cache.py [--sizes 5x512,demo] [--adapters mlp,head] [--epochs 1,5,20,50] [--full]

Both train as train_asr_adapter.py does (`adapt`), on the same batches of 200 utterances of about 4 s, which spell
their letters in tones. The seconds count everything after the model is restored: reading the manifest, attaching the
adapter, training, writing model and adapter. Python's start, imports and restoring (both ways the same) are not in.

The speed-up that is possible at all for E epochs is E * (prefix + step) / (prefix + E * step). `prefix` and `step` are
the seconds that one pass over the data takes in bare loops, measured in the same run before and after the trainings
and the lower one taken: preprocessor and frozen part without gradients; adapter, loss, backward and optimiser step on
activations in memory.

NeMo's way is run for up to --measured epochs; for more, the seconds of its last epochs are added on, which is
exact as far as epochs take the same time. `--full` runs them all.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from nemo.collections.asr.models import ASRModel, EncDecCTCModel
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from nemo_ds2_adapters import Adaptation, adapt
from nemo_ds2_adapters.adaptation.adapt import config_with
from nemo_ds2_adapters.adaptation.fit_settings import FitSettings
from nemo_ds2_adapters.adaptation.prepare import freeze_all_but_adapter, set_up_data
from nemo_ds2_adapters.adaptation.start import starting_adapter
from nemo_ds2_adapters.adapters.attach import attach
from nemo_ds2_adapters.base_training.experiment import make_trainer
from nemo_ds2_adapters.cli.output import quiet
from nemo_ds2_adapters.data.manifest import read_manifest
from nemo_ds2_adapters.evaluation.errors import Score
from nemo_ds2_adapters.evaluation.recognised import recognise

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "conf" / "deepspeech2" / "deepspeech2.yaml"
DEMO_BASE = ROOT / "demo" / "base.nemo"
SAMPLE_RATE = 16000  # Hz
SECONDS_PER_LETTER = 0.12
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ADAPTERS: dict[str, dict[str, Any]] = {
    "mlp": {"layers": "last", "hidden_dims": [512, 256]},
    "head": {"adapter_module_name": "decoder", "adapter_type": "mlp_head", "hidden_dims": [512, 256]},
}


@dataclass
class Timed:
    """One training by `adapt`."""

    result: Adaptation
    seconds: float
    wer: float  # on the training data


def write_recordings(folder: Path, number: int, seconds: float) -> Path:
    """Manifest of recordings that take `seconds` on average; each letter is a tone of its own in a little noise."""
    random = np.random.default_rng(0)
    lines = []
    t = np.arange(round(SECONDS_PER_LETTER * SAMPLE_RATE)) / SAMPLE_RATE
    for i in range(number):
        length = round(seconds / SECONDS_PER_LETTER * random.uniform(0.7, 1.3))
        letters = ["" if k % 5 == 4 else LETTERS[random.integers(len(LETTERS))] for k in range(length)]
        text = "".join(letter or " " for letter in letters).strip()
        tones = [np.sin(2 * np.pi * 150 * 1.13 ** LETTERS.index(x) * t) if x else 0 * t for x in letters]
        sound = 0.1 * np.concatenate(tones) + 0.01 * random.standard_normal(len(tones) * len(t))
        path = folder / f"{i}.wav"
        soundfile.write(path, sound, SAMPLE_RATE)
        lines.append(json.dumps({"audio_filepath": str(path), "duration": len(sound) / SAMPLE_RATE, "text": text}))
    manifest = folder / "recordings.json"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


def build_base(size: str) -> EncDecCTCModel:
    """The demo's base, or an untrained one of `<layers>x<hidden size>`."""
    if size == "demo":
        return ASRModel.restore_from(str(DEMO_BASE), map_location="cpu")
    n_layers, d_model = map(int, size.split("x"))
    cfg = OmegaConf.load(CONFIG)
    cfg.model.encoder.n_layers, cfg.model.encoder.d_model = n_layers, d_model
    OmegaConf.resolve(cfg)
    for section in ("train_ds", "validation_ds", "test_ds", "optim"):
        cfg.model.pop(section)
    torch.manual_seed(0)
    return EncDecCTCModel(cfg=cfg.model)


def train(base: EncDecCTCModel, manifest: Path, settings: dict[str, Any], cache: str, epochs: int) -> Timed:
    """Train one adapter on a copy of the base."""
    model, seconds = OmegaConf.create({}), 0.0
    with tempfile.TemporaryDirectory() as folder:
        base.save_to(f"{folder}/base.nemo")
        model = ASRModel.restore_from(f"{folder}/base.nemo", map_location="cpu")
        with contextlib.redirect_stdout(io.StringIO()):
            started = time.monotonic()
            result = adapt(model, "adapted", manifest, cache=cache, max_epochs=epochs, exp_dir=folder, **settings)
            seconds = time.monotonic() - started
            wer = wer_on(model, manifest)
    return Timed(result, seconds, wer)


def wer_on(model: EncDecCTCModel, manifest: Path) -> float:
    found = recognise(model, read_manifest(manifest, "manifest"), progress=False)
    return sum((one.score for one in found), Score()).wer or 0.0


def bare_loops(base: EncDecCTCModel, manifest: Path, settings: dict[str, Any]) -> Callable[[], tuple[float, float]]:
    """A function that measures the seconds of one pass over the data: frozen part, and training behind it."""
    with tempfile.TemporaryDirectory() as folder:
        base.save_to(f"{folder}/base.nemo")
        model = ASRModel.restore_from(f"{folder}/base.nemo", map_location="cpu")
    model.replace_adapter_compatible_modules()
    fits = {cache: FitSettings.of(config_with({**settings, "cache": cache}), False) for cache in ("off", "required")}
    attach(model, starting_adapter(model, "adapted", fits["off"].start, seed=0))
    model.set_trainer(make_trainer(fits["off"].trainer))
    freeze_all_but_adapter(model, fits["off"], has_new_output_layer=False)
    utterances = read_manifest(manifest, "manifest")
    set_up_data(model, utterances, None, fits["off"])
    recordings = list(model._train_dl)
    (data,), _ = set_up_data(model, utterances, None, fits["required"])
    data.compute()
    point, activations = data.point, list(model._train_dl)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=fits["off"].optim["lr"])

    def prefix() -> None:
        with torch.no_grad():
            for signal, signal_length, *_ in recordings:
                features, lengths = model.preprocessor(input_signal=signal, length=signal_length)
                model.encoder.forward_prefix(features, lengths, point)

    def steps() -> None:
        with model.encoder.resuming(point):
            for x, lengths, targets, target_lengths in activations:
                log_probs, lengths, _ = model(processed_signal=x, processed_signal_length=lengths)
                loss = model.loss(
                    log_probs=log_probs, targets=targets, input_lengths=lengths, target_lengths=target_lengths
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def measure() -> tuple[float, float]:
        times = []
        for run in (prefix, steps):
            started = time.monotonic()
            run()
            times.append(time.monotonic() - started)
        return times[0], times[1]

    return measure


def rows(base: EncDecCTCModel, manifest: Path, settings: dict[str, Any], arguments: argparse.Namespace) -> Iterator:
    """One row of the table per number of epochs, the measurements before."""
    measure = bare_loops(base, manifest, settings)
    measure()  # warms up
    bare = [measure()]
    measured: dict[int, Timed] = {}
    cached: dict[int, Timed] = {}
    for epochs in arguments.epochs:
        runs = epochs if arguments.full else min(epochs, arguments.measured)
        cached[epochs] = train(base, manifest, settings, "required", epochs)
        if runs not in measured:
            measured[runs] = train(base, manifest, settings, "off", runs)
        bare.append(measure())
    prefix, step = (min(times) for times in zip(*bare))
    longest = measured[max(measured)]
    marks = [epoch["seconds"] for epoch in longest.result.history]
    per_epoch = statistics.median(np.diff(marks)) if len(marks) > 1 else marks[0]
    print(f"  one pass: frozen part {prefix:.2f} s, steps {step:.2f} s; NeMo's way {per_epoch:.2f} s per epoch")
    for epochs in arguments.epochs:
        runs = max(r for r in measured if r <= epochs)
        uncached = measured[runs].seconds + (epochs - runs) * per_epoch
        possible = epochs * (prefix + step) / (prefix + epochs * step)
        reached = uncached / cached[epochs].seconds
        wer = f"{100 * measured[runs].wer:.1f} %" if runs == epochs else "-"
        yield (
            str(epochs),
            f"{uncached:.1f}{'' if runs == epochs else ' *'}",
            f"{cached[epochs].seconds:.1f}",
            f"{possible:.2f}",
            f"{reached:.2f}",
            f"{reached / possible:.2f}",
            wer,
            f"{100 * cached[epochs].wer:.1f} %",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="5x512,demo", help="of the base: LAYERSxHIDDEN or demo, joined by commas")
    parser.add_argument("--adapters", default=",".join(ADAPTERS), help=f"of {', '.join(ADAPTERS)}, joined by commas")
    parser.add_argument("--epochs", default="1,5,20,50", type=lambda text: sorted(map(int, text.split(","))))
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=4.0, help="of an utterance, on average")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--measured", type=int, default=5, help="epochs of NeMo's way that are run, more are added on")
    parser.add_argument("--full", action="store_true", help="run all epochs of NeMo's way")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quiet("ERROR")
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_recordings(Path(folder), arguments.utterances, arguments.seconds)
        for size in arguments.sizes.split(","):
            base = build_base(size)
            for name in arguments.adapters.split(","):
                title = f"{size}, {name} adapter, {arguments.utterances} utterances of about {arguments.seconds:g} s"
                table = Table("epochs", title=title, caption="* added on from measured epochs")
                for heading in ("NeMo s", "cached s", "possible", "reached", "ratio", "WER NeMo", "WER cached"):
                    table.add_column(heading, justify="right")
                settings = {
                    **ADAPTERS[name],
                    "batch_size": arguments.batch_size,
                    "accelerator": "cpu",
                    "folds": 0,
                    "enable_progress_bar": False,
                    "create_tensorboard_logger": False,
                }
                for row in rows(base, manifest, settings, arguments):
                    table.add_row(*row)
                Console(width=100).print(table)


if __name__ == "__main__":
    main()
