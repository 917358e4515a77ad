"""What goes wrong with one stream harms no other."""

import gc
import threading
import weakref

import numpy as np
import pytest
import torch

from nemo_ds2_adapters import InputError, Recogniser, StreamError
from nemo_ds2_adapters.streaming.stream import Stream
from tests.conftest import SAMPLE_RATE

SECOND = np.zeros(SAMPLE_RATE, np.float32)


class Other:
    """Somebody who goes on speaking while things go wrong with others."""

    def __init__(self, recogniser: Recogniser, recording: torch.Tensor, user: str) -> None:
        self.recogniser = recogniser
        self.chunks = list(recording.split(1280))
        self.stream = recogniser.open(user)

    def speak(self) -> None:
        self.stream.feed(self.chunks.pop(0))
        self.recogniser.step()

    def end(self) -> str:
        while self.chunks:
            self.speak()
        return self.stream.finish().text


@pytest.fixture
def recogniser(model, bank) -> Recogniser:
    return Recogniser(model, bank)


@pytest.fixture
def other(recogniser, speech, people) -> Other:
    return Other(recogniser, speech(3.0, 1), people[0])


@pytest.fixture
def unharmed(other, speech, people, whole):
    yield
    assert other.end().replace(" ", "") == whole(speech(3.0, 1), people[0]).replace(" ", "")  # pauses make spaces


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.array([0.1, np.nan, np.inf], np.float32), "2 of 3 samples are not finite"),
        (np.array([1e300]), "1 of 1 samples are not finite"),
        (torch.tensor([float("nan")]), "not finite"),
        (np.zeros((2, 100), np.float32), r"shape \(2, 100\)"),
        (np.zeros(4, np.int64), "type int64"),
        ([0.1, 0.2], "list"),
        (b"RIFF", "bytes"),
        (None, "NoneType"),
    ],
    ids=str,
)
def test_samples_that_are_none(recogniser, other, people, speech, whole, samples, message) -> None:
    stream = recogniser.open(people[1])
    stream.feed(speech(0.5))
    other.speak()
    with pytest.raises(InputError, match=message):
        stream.feed(samples)
    stream.feed(speech(0.7, 3))
    assert stream.finish().text == whole(torch.cat([speech(0.5), speech(0.7, 3)]), people[1])


@pytest.mark.usefixtures("unharmed")
def test_sound_that_no_model_can_take(recogniser, other, people) -> None:
    stream = recogniser.open(people[1])
    stream.feed(np.full(SAMPLE_RATE, 3e38, np.float32) * np.sign(np.sin(np.arange(SAMPLE_RATE))).astype(np.float32))
    other.speak()
    other.speak()
    for call in (lambda: stream.partial, lambda: stream.feed(SECOND), stream.finish):
        with pytest.raises(StreamError, match="not finite"):
            call()


@pytest.mark.usefixtures("unharmed")
def test_ten_minutes_of_silence(quiet, recogniser, other, people, speech) -> None:
    stream = recogniser.open()
    stream.feed(np.tile(SECOND, 600))
    while recogniser.step():
        pass
    assert stream.partial.text == "" and stream.segments == []
    assert stream._transcript._decoder._log_probs[-1].shape[0] * 20 < 2000  # ms of frames that are kept
    assert len(stream.pending.samples) < SAMPLE_RATE / 10
    stream.feed(speech(1.0))
    found = stream.finish()
    assert found.text and found.timestamp["word"][0]["start"] > 599


@pytest.mark.usefixtures("unharmed")
def test_ended_streams(recogniser, other, speech) -> None:
    closed, finished = recogniser.open(), recogniser.open()
    finished.feed(speech(1.0))
    finished.finish()
    for stream in (closed, finished):
        stream.close()
        stream.close()
        other.speak()
        with pytest.raises(StreamError, match="open another one"):
            stream.feed(SECOND)
        with pytest.raises(StreamError, match="open another one"):
            stream.finish()
    assert finished.partial.text == finished.segments[0].text


@pytest.mark.usefixtures("unharmed")
def test_streams_that_are_killed(recogniser, bank, other, people, speech) -> None:
    dropped = recogniser.open(people[1])
    dropped.feed(speech(1.0))
    other.speak()
    gone = weakref.ref(dropped)
    del dropped
    with pytest.raises(RuntimeError), recogniser.open(people[2]) as stream:
        stream.feed(speech(1.0))
        raise RuntimeError("the connection broke")
    thread = threading.Thread(target=lambda: recogniser.open(people[3]).feed(speech(1.0)))
    thread.start()
    thread.join()
    other.speak()
    assert gone() is None
    assert [bank._residents[person].users for person in people[:4]] == [1, 0, 0, 0]


@pytest.mark.foreign
@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("name", ["accept", "finish"])
def test_decoder_that_fails(recogniser, other, people, speech, name: str) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("no words")

    stream = recogniser.open(people[1])
    setattr(stream._transcript, name, fail)
    stream.feed(speech(1.0))
    other.speak()
    with pytest.raises(StreamError, match="ZeroDivisionError: no words"):
        stream.finish()


@pytest.mark.usefixtures("unharmed")
def test_state_that_fits_no_batch(recogniser, other, speech) -> None:
    stream = recogniser.open()
    stream.state = stream.state[:, 1:]
    stream.feed(speech(1.0))
    other.speak()
    with pytest.raises(StreamError, match="the stream failed"):
        stream.finish()


def test_a_thousand_streams_leave_nothing_behind(recogniser, bank, people, speech) -> None:
    def one(number: int) -> None:
        stream = recogniser.open(people[number % 40])
        stream.feed(speech(0.1))
        if number % 3 == 0:
            stream.finish()
        elif number % 3 == 1:
            recogniser.step()
            stream.close()

    def alive(kind: type) -> int:
        gc.collect()
        return sum(issubclass(type(thing), kind) for thing in gc.get_objects())  # a dead proxy has no class of its own

    for number in range(40):
        one(number)
    recogniser.step()
    tensors = alive(torch.Tensor)
    for number in range(1000):
        one(number)
    recogniser.step()
    assert alive(Stream) == 0 and alive(torch.Tensor) <= tensors
    assert not any(resident.users for resident in bank._residents.values())
