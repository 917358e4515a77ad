"""Streams of any mix of people, in any chunks, are recognised as their whole recordings are."""

import numpy as np
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from nemo_ds2_adapters import Recogniser, transcribe
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
                    assert stream.partial.text == results[number].text
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
            np.testing.assert_allclose(found, whole[0, : int(frames)].numpy(), atol=1e-5)
            for field in FIELDS:
                assert getattr(results[number], field) == getattr(expected[number], field)
            for field in CONFIDENCES:
                np.testing.assert_allclose(
                    getattr(results[number], field), getattr(expected[number], field), atol=1e-3
                )

    equal()
