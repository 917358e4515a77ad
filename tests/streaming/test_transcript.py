"""Pauses end segments, and the text of the whole stream stays one."""

import numpy as np
import pytest
import torch

from nemo_ds2_adapters.decoding.decoder import Decoder
from nemo_ds2_adapters.decoding.greedy import GreedyDecoder
from nemo_ds2_adapters.streaming.transcript import Transcript
from tests.conftest import VOCABULARY

SPOKEN = "__on_e  ______two t______hen_"  # "_" is the blank; 0.02 s each


def log_probs_of(units: str) -> np.ndarray:
    numbers = [len(VOCABULARY) if unit == "_" else VOCABULARY.index(unit) for unit in units]
    scores = torch.randn(len(numbers), len(VOCABULARY) + 1, generator=torch.Generator().manual_seed(0))
    scores[torch.arange(len(numbers)), numbers] += 8.0
    return scores.log_softmax(-1).numpy()


@pytest.fixture
def decoder(model) -> Decoder:
    return Decoder(model, timestamps=True, confidence=True)


def transcript(decoder: Decoder, pause_seconds: float) -> Transcript:
    return Transcript(lambda: GreedyDecoder(decoder), decoder.blank, decoder.frame_seconds, pause_seconds)


@pytest.mark.parametrize("size", [1, 4, 100])
def test_segments(decoder: Decoder, size: int) -> None:
    found = transcript(decoder, pause_seconds=0.1)
    log_probs = log_probs_of(SPOKEN)
    stable = ""
    for first in range(0, len(log_probs), size):
        found.accept(log_probs[first : first + size])
        assert found.partial.stable.startswith(stable.rstrip())
        stable = found.partial.stable
    assert found.partial.text == "one two t hen"
    assert [segment.text.strip() for segment in found.segments] == ["one", "two t"]
    whole = found.finish()
    assert whole.text == "one two t hen" == found.partial.text
    for first, span in zip(("o", "two", "t__", "hen"), whole.timestamp["word"], strict=True):
        assert span["start_offset"] <= SPOKEN.index(first) <= span["end_offset"]
        assert (span["start"], span["end"]) == (0.02 * span["start_offset"], 0.02 * span["end_offset"])
    assert len(whole.word_confidence) == 4 and len(whole.frame_confidence) == whole.length == len(log_probs)
    assert len(whole.non_blank_frame_confidence) == len(whole.timestamp["timestep"])
    best = log_probs.argmax(-1)
    assert "".join(VOCABULARY[best[frame]] for frame in whole.timestamp["timestep"]).split() == ["one", "two", "then"]


def test_no_pauses(decoder: Decoder) -> None:
    found, log_probs = transcript(decoder, pause_seconds=np.inf), log_probs_of(SPOKEN)
    found.accept(log_probs)
    assert found.segments == []
    assert found.finish().text == decoder([log_probs])[0].text == "one two then"


def test_silence_is_no_segment(decoder: Decoder) -> None:
    found = transcript(decoder, pause_seconds=0.1)
    for _ in range(100):
        found.accept(log_probs_of("_" * 17))
    assert found.partial.text == "" and found.segments == []
    found.accept(log_probs_of("a"))
    whole = found.finish()
    assert whole.text == "a" and whole.timestamp["word"][0]["start_offset"] == 1700


def test_nothing_at_all(decoder: Decoder) -> None:
    assert transcript(decoder, 1.0).finish().text == ""
