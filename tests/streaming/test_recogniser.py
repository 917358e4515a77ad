"""Streams of any mix of people, in any chunks, are recognised as their whole recordings are."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from nemo_ds2_adapters import InputError, Recogniser, transcribe
from nemo_ds2_adapters.streaming.stream import Stream
from nemo_ds2_adapters.streaming.transcript import Transcript

FIELDS = ("text", "timestamp", "length")
CONFIDENCES = ("word_confidence", "token_confidence", "frame_confidence")
PLANS = st.lists(
    st.tuples(
        st.integers(0, 40),  # who; the last one is nobody
        st.floats(0.1, 1.5),  # seconds
        st.integers(0, 5),  # step at which they join
        st.lists(st.integers(0, 4000), min_size=1, max_size=5),  # samples in a chunk, over and over
    ),
    min_size=1,
    max_size=6,
)


def test_any_mix_of_streams_equals_whole_recordings(model, people, bank, speech, monkeypatch) -> None:
    outputs: dict[int, list[np.ndarray]] = {}
    accept = Transcript.accept

    def noted(self: Transcript, log_probs: np.ndarray) -> None:
        outputs.setdefault(id(self), []).append(log_probs)
        accept(self, log_probs)

    monkeypatch.setattr(Transcript, "accept", noted)
    recogniser = Recogniser(model, bank, pause_seconds=np.inf, batch_size=4)

    @settings(max_examples=40, phases=[Phase.generate])  # a failing mix is small enough, and shrinking takes minutes
    @given(PLANS, st.integers(0, 100))
    def equal(plans: list[tuple[int, float, int, list[int]]], seed: int) -> None:
        outputs.clear()
        users = [None if who == len(people) else people[who] for who, *_ in plans]
        recordings = [speech(seconds, seed + number) for number, (_, seconds, *_) in enumerate(plans)]
        streams: dict[int, Stream] = {}
        position, results = [0] * len(plans), {}
        for step in range(10_000):
            for number, (_, _, joins, chunks) in enumerate(plans):
                if step < joins or number in results:
                    continue
                stream = (
                    streams.setdefault(number, recogniser.open(users[number])) if step == joins else streams[number]
                )
                size = [*chunks, 800][(step - joins) % (len(chunks) + 1)]
                stream.feed(recordings[number][position[number] : position[number] + size])
                position[number] += size
                if position[number] >= len(recordings[number]):
                    results[number] = stream.finish()
                    assert stream.partial.text == results[number].text.strip()
            if len(results) == len(plans):
                break
            recogniser.step()
        expected = transcribe(
            model, recordings, users, bank, confidence=True, timestamps=True, max_seconds=np.inf, progress=False
        )
        for number, (recording, user) in enumerate(zip(recordings, users)):
            found = np.concatenate(outputs[id(streams[number]._transcript)])
            with torch.inference_mode(), bank.route([user]):
                whole, frames, _ = model(
                    input_signal=recording[None], input_signal_length=torch.tensor([len(recording)])
                )
            np.testing.assert_allclose(found, whole[0, : int(frames)].numpy(), atol=1e-5, rtol=1e-5)
            for field in FIELDS:
                assert getattr(results[number], field) == getattr(expected[number], field)
            for field in CONFIDENCES:
                np.testing.assert_allclose(
                    getattr(results[number], field), getattr(expected[number], field), atol=1e-3
                )

    equal()


def test_threads_that_feed_while_one_steps(model, people, bank, speech, whole) -> None:
    recogniser = Recogniser(model, bank, pause_seconds=np.inf)
    recordings = [speech(0.5 + number / 5, number) for number in range(6)]
    users = [*people[::8], None]
    stop = threading.Event()

    def step() -> None:
        while not stop.is_set():
            recogniser.step()
            time.sleep(0.001)

    def speak(number: int) -> str:
        with recogniser.open(users[number]) as stream:
            for chunk in recordings[number].split(1280):
                stream.feed(chunk)
                assert stream.partial.text is not None
                time.sleep(0.001)
            return stream.finish().text

    with ThreadPoolExecutor(7) as pool:
        stepping = pool.submit(step)
        found = list(pool.map(speak, range(6)))
        stop.set()
        stepping.result()
    assert found == [whole(recording, user) for recording, user in zip(recordings, users)]


def test_other_sample_rates(model, speech) -> None:
    recogniser, recording = Recogniser(model), speech(1.0).numpy()
    found = []
    for size in (8000, 999):
        stream = recogniser.open(sample_rate=8000)
        for first in range(0, 8000, size):
            stream.feed((recording[first : first + size] * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16))
            recogniser.step()
        found.append(stream.finish())
    assert found[0].text == found[1].text
    assert found[0].length == 50  # of 1 s at 8 kHz: it is longer at 16 kHz, not faster


def test_models_that_cannot_stream(model, make_model, make_streaming, make_base) -> None:
    for wrong, message in [
        (make_streaming(bidirectional=True, lookahead_context=0), "bidirectional.*deepspeech2_streaming"),
        (
            make_model(encoder={"bidirectional": False}),
            "MelSpec.* normalises.*deepspeech2_streaming",
        ),
        (make_base("conformer"), "ConformerEncoder.* cannot be streamed"),
        ("model.nemo", "a str cannot be streamed"),
    ]:
        with pytest.raises(InputError, match=message):
            Recogniser(wrong)
    for settings_ in ({"pause_seconds": 0}, {"pause_seconds": "1"}, {"batch_size": 0}):
        with pytest.raises(InputError, match=f"{next(iter(settings_))}=.*expected"):
            Recogniser(model, **settings_)


def test_streams_that_cannot_be_opened(model, people, bank) -> None:
    for recogniser, options, message in [
        (Recogniser(model), {"user": people[0]}, "give the recogniser a bank"),
        (Recogniser(model, bank), {"user": "nobody"}, "nobody"),
        (Recogniser(model), {"sample_rate": 0}, "sample_rate=0"),
        (Recogniser(model), {"sample_rate": 44.1}, "sample_rate=44.1"),
        (Recogniser(model), {"words": ["7 Up"]}, "7 Up"),
    ]:
        with pytest.raises(InputError, match=message):
            recogniser.open(**options)
        assert recogniser.step() == 0
