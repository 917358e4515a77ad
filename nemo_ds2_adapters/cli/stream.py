"""Show the text of a recording, or of a microphone, while it is spoken."""

import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from nemo_ds2_adapters.cli.output import busy, say, show_json
from nemo_ds2_adapters.data.manifest import Utterance, is_file
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.text import printable

if TYPE_CHECKING:
    import numpy as np

    from nemo_ds2_adapters.decoding.incremental import Partial
    from nemo_ds2_adapters.streaming.recogniser import Recogniser

CHUNK_SECONDS = 0.08


def stream(
    model: Annotated[Path, typer.Argument(help="A forward-only base, or an adapted one.", metavar="MODEL.nemo")],
    recording: Annotated[Path | None, typer.Argument(help="A recording.", metavar="RECORDING")] = None,
    microphone: Annotated[bool, typer.Option("--microphone", help="Listen until Ctrl+C.")] = False,
    real_time: Annotated[bool, typer.Option("--real-time", help="As fast as the recording was spoken.")] = False,
    user: Annotated[str | None, typer.Option(help="Whose adapter to use; without, the base.")] = None,
    store: Annotated[str | None, typer.Option(help="Where adapters are; without, those in the .nemo.")] = None,
    lm: Annotated[Path | None, typer.Option(help="ARPA file of a language model, as of ds2-adapters lm.")] = None,
    pause: Annotated[float, typer.Option(help="Seconds of silence after which the text is final.")] = 1.2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs: text, words, confidence.")] = False,
) -> None:
    """Recognise a recording, or a microphone, while it is spoken: the text grows."""
    if microphone == (recording is not None):
        raise InputError(f"give {'either ' if microphone else ''}a recording or --microphone")
    if microphone and real_time:
        raise InputError("--real-time is for a recording: a microphone hears nothing faster")
    if store is not None and user is None:
        raise InputError(f"--store {store}: say whose adapter to use, --user")
    if not is_file(model):
        raise InputError(f"{model}: no such file")
    from nemo_ds2_adapters.data.audio import fitted

    utterance = None if recording is None else fitted(Utterance(recording))
    with busy(f"reading {model}"):
        recogniser = open_recogniser(model, store, user, lm, pause)
    rate = recogniser.sample_rate
    chunks = listen(rate) if utterance is None else cut(utterance, rate, real_time)
    console = Console(highlight=False)
    shows = console.is_terminal and not as_json
    with recogniser.open(user) as opened, Live(console=console, auto_refresh=False, transient=True) as live:
        try:
            for samples in chunks:
                opened.feed(samples)
                while recogniser.step():
                    pass
                if shows:
                    live.update(shown(opened.partial), refresh=True)
        except KeyboardInterrupt:
            if not microphone:  # where it is the way to end
                raise
        found = opened.finish()
    if as_json:
        words = [
            {**span, "confidence": float(confidence)}
            for span, confidence in zip(found.timestamp["word"], found.word_confidence)
        ]
        show_json({"text": found.text, "words": words})
    else:
        say(str(found.text))


def open_recogniser(
    model: Path, store: str | None, user: str | None, lm: Path | None, pause_seconds: float
) -> "Recogniser":
    """A recogniser with the model of a file, and the adapters of a store, or of the same file."""
    from nemo_ds2_adapters.adapters.enabling import enable_adapters
    from nemo_ds2_adapters.decoding.search import SearchSettings
    from nemo_ds2_adapters.formats.nemo_archive import restore_model
    from nemo_ds2_adapters.recognition.bank import AdapterBank
    from nemo_ds2_adapters.store.store import AdapterStore
    from nemo_ds2_adapters.streaming.recogniser import Recogniser, check_streams

    opened = None if store is None else AdapterStore(store, create=False)
    restored = restore_model(str(model), None)
    check_streams(restored)
    enable_adapters(restored, None)
    bank = None if user is None else AdapterBank(restored.eval(), opened)
    return Recogniser(restored, bank, search=SearchSettings(lm=lm), pause_seconds=pause_seconds)


def shown(partial: "Partial") -> Text:
    """What is stable in full, the rest dim."""
    return Text.assemble(printable(partial.stable), (printable(partial.unstable), "dim"))


def cut(utterance: Utterance, sample_rate: int, real_time: bool) -> "Iterator[np.ndarray]":
    """A recording in chunks, as they would arrive; without the waiting unless in real time."""
    from nemo_ds2_adapters.data.audio import read_audio

    samples = read_audio(utterance, sample_rate)
    size = round(CHUNK_SECONDS * sample_rate)
    start = time.monotonic()
    for first in range(0, len(samples), size):
        chunk = samples[first : first + size]
        if real_time:  # a chunk is there when its end was spoken
            time.sleep(max(0.0, start + (first + len(chunk)) / sample_rate - time.monotonic()))
        yield chunk


def listen(sample_rate: int) -> "Iterator[np.ndarray]":
    """What the default microphone hears, in chunks, without end.

    Raises InputError: sounddevice is not installed, or there is no microphone.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: there is no PortAudio
        raise InputError(f"--microphone needs the extra [microphone], and PortAudio ({error})") from error
    heard: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
    try:
        with sounddevice.InputStream(
            sample_rate,
            round(CHUNK_SECONDS * sample_rate),
            channels=1,
            dtype="float32",
            callback=lambda samples, *_: heard.put(samples[:, 0].copy()),
        ):
            say("listening, Ctrl+C ends", err=True)
            while True:
                yield heard.get()
    except sounddevice.PortAudioError as error:
        raise InputError(f"--microphone: {error}") from error
