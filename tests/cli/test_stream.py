"""`ds2-adapters stream`, as a person calls it."""

import json
import os
import re
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_ds2_adapters import AdapterStore, transcribe
from tests.conftest import SAMPLE_RATE


@pytest.fixture
def run(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    return partial(run, "stream")


@pytest.fixture
def model(make_streaming, attach):
    """A model with the adapter `all_0`."""
    streaming = make_streaming()
    attach(streaming, "all")
    return streaming


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    samples = np.random.default_rng(0).standard_normal(3 * SAMPLE_RATE) * np.linspace(0, 1, 3 * SAMPLE_RATE)
    soundfile.write(tmp_path / "recording.flac", samples.clip(-1, 1), SAMPLE_RATE)
    return tmp_path / "recording.flac"


def test_recording(run, model, recording: Path) -> None:
    model.save_to("model.nemo")
    AdapterStore("store").put("john.doe@example.com", model, "all_0")
    base, own = transcribe(model, [recording] * 2, [None, "all_0"], progress=False)
    assert base != own
    for arguments, expected in [
        ((), base),
        (("--user", "all_0"), own),
        (("--store", "store", "--user", "john.doe@example.com"), own),
    ]:
        assert run("model.nemo", recording, *arguments, "--pause", "inf") == (0, f"{expected}\n", "")
    start = time.monotonic()
    assert run("model.nemo", recording, "--real-time", "--pause", "inf") == (0, f"{base}\n", "")
    assert time.monotonic() - start >= 3.0  # seconds, of the recording
    code, said, _ = run("model.nemo", recording, "--json", "--pause", "inf")
    found = json.loads(said)
    assert code == 0 and found["text"] == base
    assert [word["word"] for word in found["words"]] == base.split()
    assert set(found["words"][0]) >= {"start", "end", "confidence"}


@pytest.fixture
def without_sounddevice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)


@pytest.mark.usefixtures("without_sounddevice")
def test_wrong_input(run, model, make_model, recording: Path) -> None:
    model.save_to("model.nemo")
    make_model().save_to("other.nemo")
    Path("broken.nemo").write_bytes(b"no archive")
    Path("broken.flac").write_bytes(b"no sound")
    AdapterStore("store")
    for arguments, message in [
        (("model.nemo",), "give a recording or --microphone"),
        (("model.nemo", recording, "--microphone"), "give either a recording or --microphone"),
        (("nothing.nemo", recording), "nothing.nemo: no such file"),
        (("model.nemo", "--microphone", "--real-time"), "--real-time is for a recording"),
        (("broken.nemo", recording), "broken.nemo: "),
        (("model.nemo", "nothing.wav"), "nothing.wav cannot be read as audio"),
        (("model.nemo", "broken.flac"), "broken.flac cannot be read as audio"),
        (("other.nemo", recording), "the model is bidirectional.*deepspeech2_streaming"),
        (("model.nemo", recording, "--user", "nobody"), "nobody"),
        (("model.nemo", recording, "--store", "store"), "--store store: say whose adapter"),
        (("model.nemo", recording, "--store", "nowhere", "--user", "john"), "nowhere"),
        (("model.nemo", recording, "--store", "store", "--user", "john"), "no adapter of user 'john'"),
        (("model.nemo", recording, "--lm", "no.arpa"), "no.arpa"),
        (("model.nemo", recording, "--pause", "0"), "pause_seconds=0.0: expected"),
        (("model.nemo", "--microphone"), "--microphone needs the extra .microphone., and PortAudio"),
    ]:
        code, said, error = run(*arguments)
        assert code == 1 and said == "" and error.count("\n") == 1
        assert re.match(f"error: .*{message}", error)


class Microphone:
    """Stands in for sounddevice, which needs one: somebody speaks the recording, then presses Ctrl+C."""

    PortAudioError = RuntimeError

    def __init__(self, samples: np.ndarray) -> None:
        self.samples = samples

    def InputStream(self, rate: int, size: int, channels: int, dtype: str, callback) -> "Microphone":
        assert (rate, channels, dtype) == (SAMPLE_RATE, 1, "float32")
        self.chunks = np.split(self.samples[:, None], range(size, len(self.samples), size))
        self.callback = callback
        return self

    def __enter__(self) -> None:
        for chunk in self.chunks:
            self.callback(chunk, len(chunk), None, None)
        threading.Thread(target=self.interrupt_when_idle).start()

    def interrupt_when_idle(self) -> None:
        before = -1.0
        while time.process_time() - before > 0.02:  # until all is recognised, on a busy machine too
            before = time.process_time()
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGINT)

    def __exit__(self, *_: object) -> None:
        pass


def test_microphone(
    run, model, recording: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    model.save_to("model.nemo")
    samples, _ = soundfile.read(recording, dtype="float32")
    monkeypatch.setitem(sys.modules, "sounddevice", Microphone(samples))
    expected = transcribe(model, samples, [None], progress=False)[0]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where the tests run in the background
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    assert run("model.nemo", "--microphone", "--pause", "inf") == (0, f"{expected}\n", "listening, Ctrl+C ends\n")
