"""What it costs to recognise people while they speak, on one core.

    python benchmarks/streaming.py                          # random weights of the recipe deepspeech2_streaming
    python benchmarks/streaming.py --model streaming.nemo   # a trained base

Chunks of 80 ms, adapters with 64 hidden values after every recurrent layer, 20 personal words for each person, which
are searched by a beam. Processor time is what counts on a machine that is busy, wall time what people wait. With
random weights the decoder's blank is favoured, so that as many frames are blank as in speech, and the sound is noise.

    real-time factor     time per second of speech, one stream
    final text           from the last chunk's arrival to `finish()`, which recognises it and all that is waiting
    16 streams           a chunk of each in one step: how long the chunks wait for it
    memory               of the process, after 1,000 streams were opened, fed and closed, against before
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.utils import logging
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.processes import megabytes
from nemo_ds2_adapters import AdapterBank, AdapterStore, Recogniser, add_adapter, delete_adapter
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.configs import shipped_config
from nemo_ds2_adapters.formats.nemo_archive import restore_model

CHUNK_SECONDS = 0.08
USERS = 16
BLANKS = 0.8  # share of the frames
ADAPTER = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [64], "enabled": False}
WORDS = (
    "siobhan",
    "xochitl ortega",
    "nguyen",
    "kowalczyk",
    "oyelaran",
    "saoirse",
    "krzysztof",
    "aaliyah",
    "bjornsson",
    "dvorak",
    "eilidh",
    "fiachra",
    "guadalupe",
    "hyacinth",
    "ivanova",
    "joaquin",
    "llewellyn",
    "murakami",
    "quetzal",
    "zbigniew",
)


class Seconds(NamedTuple):
    """How long something took."""

    processor: float
    wall: float


def timed(what: Callable[[], object]) -> Seconds:
    processor, wall = time.process_time(), time.perf_counter()
    what()
    return Seconds(time.process_time() - processor, time.perf_counter() - wall)


def random_model() -> EncDecCTCModel:
    """The recipe's model with random weights, and statistics of noise."""
    cfg = shipped_config("deepspeech2/deepspeech2_streaming").model
    OmegaConf.set_struct(cfg, False)
    for key in ("train_ds", "validation_ds", "test_ds"):
        cfg.pop(key, None)
    bands = cfg.preprocessor.features
    cfg.preprocessor.update(feature_mean=[-6.0] * bands, feature_std=[2.0] * bands)
    model = EncDecCTCModel(cfg=cfg).eval()
    model.replace_adapter_compatible_modules()
    with torch.no_grad():
        model.decoder.output.weight.mul_(12.0)
        noise = torch.from_numpy(sound(10.0))[None]
        log_probs, *_ = model(input_signal=noise, input_signal_length=torch.tensor([noise.shape[1]]))
        needed = log_probs[0].max(-1).values - log_probs[0, :, -1]  # for the blank to be the best
        model.decoder.output.bias[-1] += needed.quantile(BLANKS)
    return model


def sound(seconds: float) -> np.ndarray:
    """Noise that changes its loudness and colour."""
    random = np.random.default_rng(0)
    parts = []
    for _ in range(round(seconds * 16)):
        noise = random.standard_normal(1000)
        parts.append(0.3 * random.random() * (noise + random.uniform(-1, 1) * np.roll(noise, 1)))
    return np.concatenate(parts).astype(np.float32)


def speak(recogniser: Recogniser, user: str | None, words: tuple[str, ...], chunks: list[np.ndarray]) -> None:
    """One stream from its beginning to its end, its text read after every chunk."""
    stream = recogniser.open(user, words)
    for chunk in chunks:
        stream.feed(chunk)
        recogniser.step()
        stream.partial  # noqa: B018
    stream.finish()


def last_chunk(recogniser: Recogniser, chunks: list[np.ndarray]) -> Seconds:
    """How long the final text takes after the last chunk."""
    stream = recogniser.open("user_0", WORDS)
    for chunk in chunks[:-1]:
        stream.feed(chunk)
        recogniser.step()
    stream.feed(chunks[-1])
    return timed(stream.finish)


def many_streams(recogniser: Recogniser, chunks: list[np.ndarray]) -> list[Seconds]:
    """How long each step of all of them takes."""
    streams = [recogniser.open(f"user_{number}", WORDS) for number in range(USERS)]
    times = []
    for chunk in chunks:
        for stream in streams:
            stream.feed(chunk)
        times.append(timed(recogniser.step))
    for stream in streams:
        stream.close()
    return times


def opened_and_closed(recogniser: Recogniser, count: int, chunk: np.ndarray) -> float:
    """Memory after so many streams."""
    for number in range(count):
        with recogniser.open(f"user_{number % USERS}", WORDS) as stream:
            stream.feed(chunk)
            recogniser.step()
    return megabytes()


def delay(model: EncDecCTCModel) -> float:
    """Seconds of sound that must follow a frame before its output is known, whatever the machine."""
    hop = float(model.cfg.preprocessor.window_stride)
    frames, stride = 0, 1
    for block in model.encoder.conv.blocks:
        frames += stride * block.conv.padding[1]
        stride *= block.conv.stride[1]
    context = 0 if model.encoder.lookahead is None else model.encoder.lookahead[0].context - 1
    return hop * (frames + stride * context) + float(model.cfg.preprocessor.window_size) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a .nemo that can stream")
    parser.add_argument("--seconds", type=float, default=8.0, help="of one utterance")
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    logging.setLevel(logging.ERROR)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = restore_model(arguments.model, None).eval() if arguments.model else random_model()
    with tempfile.TemporaryDirectory() as folder:
        recogniser = Recogniser(model, AdapterBank(model, filled_store(Path(folder), model)))
        measure(recogniser, arguments.seconds, arguments.repetitions, arguments.model or "random weights")


def filled_store(folder: Path, model: EncDecCTCModel) -> AdapterStore:
    """Everybody's adapters; the model has none afterwards."""
    store = AdapterStore(folder)
    add_adapter(model, "any", ADAPTER)
    for number in range(USERS):
        for parameter in model.encoder.adapter_points.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
        store.put(f"user_{number}", attached_adapter(model, "any"))
    delete_adapter(model, "any")
    return store


def measure(recogniser: Recogniser, seconds: float, repetitions: int, name_of_model: str) -> None:
    """Print the table."""
    size = round(CHUNK_SECONDS * recogniser.sample_rate)
    whole = sound(seconds)
    chunks = [whole[first : first + size] for first in range(0, len(whole), size)]

    table = Table(title=f"Streams on one core, {name_of_model}")
    for column in ("what", "processor", "wall", "target"):
        table.add_column(column, justify="left" if column == "what" else "right")

    def row(what: str, seconds: Seconds, target: str, scale: float = 1e3, unit: str = " ms") -> None:
        table.add_row(what, *(f"{scale * value:.{1 if unit else 3}f}{unit}" for value in seconds), target)

    ways = {
        "base": lambda: speak(recogniser, None, (), chunks),
        "adapter": lambda: speak(recogniser, "user_0", (), chunks),
        "adapter, 20 words": lambda: speak(recogniser, "user_0", WORDS, chunks),
    }
    times: dict[str, list[Seconds]] = {name: [] for name in ways}
    for repetition in range(repetitions + 1):
        for name, way in ways.items():
            if repetition:  # the first one warms up
                times[name].append(timed(way))
            else:
                way()
    for name, found in times.items():
        row(f"real-time factor, {name}", median(found), "0.1", 1 / (len(whole) / recogniser.sample_rate), "")
    table.add_section()
    ends = [last_chunk(recogniser, chunks[:40]) for _ in range(max(repetitions, 15))]
    row("final text, adapter, 20 words, median", median(ends), "50 ms")
    table.add_row(
        "    its delay by look-ahead, convolutions, window", f"{1e3 * delay(recogniser.model):.0f} ms", "", ""
    )
    table.add_section()
    steps = [step for _ in range(2) for step in many_streams(recogniser, chunks)][len(chunks) // 2 :]
    row(f"{USERS} streams with adapters and words, a chunk of each: median", median(steps), "80 ms")
    row("    95 %", quantile(steps, 0.95), "")
    table.add_section()
    before = opened_and_closed(recogniser, 200, chunks[0])
    after = opened_and_closed(recogniser, 1000, chunks[0])
    table.add_row("memory after 1,000 streams", f"{after - before:+.1f} MB", f"of {before:.0f} MB", "flat")
    Console(width=110).print(table)


def median(times: list[Seconds]) -> Seconds:
    return Seconds(*map(statistics.median, zip(*times)))


def quantile(times: list[Seconds], share: float) -> Seconds:
    return Seconds(*(float(np.quantile(values, share)) for values in zip(*times)))


if __name__ == "__main__":
    main()
