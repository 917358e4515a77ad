"""Greedy decoding in chunks gives what the whole utterance gives."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.decoding.decoder import Decoder
from nemo_ds2_adapters.decoding.greedy import GreedyDecoder
from tests.conftest import VOCABULARY


def log_probs_of(units: list[int]) -> np.ndarray:
    """`[T, V]` in which these are the best; the blank is `len(VOCABULARY)`."""
    scores = torch.randn(len(units), len(VOCABULARY) + 1, generator=torch.Generator().manual_seed(0))
    scores[torch.arange(len(units)), units] += 8.0
    return scores.log_softmax(-1).numpy()


def test_any_chunks(model: EncDecCTCModel) -> None:
    decoder = Decoder(model, timestamps=True, confidence=True)

    @given(
        units=st.lists(st.sampled_from([0, 1, 2, 3, len(VOCABULARY)]), max_size=40),
        cuts=st.lists(st.integers(0, 40), max_size=6),
    )
    def equal_whole(units: list[int], cuts: list[int]) -> None:
        whole = log_probs_of(units)
        expected = decoder([whole])[0]
        greedy, stable = GreedyDecoder(decoder), ""
        for chunk in np.split(whole, sorted(min(cut, len(units)) for cut in cuts)):
            greedy.accept(chunk)
            assert greedy.partial.stable.startswith(stable)
            stable = greedy.partial.stable
        assert greedy.partial.text == expected.text
        found = greedy.finish()
        for field in ("text", "timestamp", "word_confidence", "token_confidence", "frame_confidence"):
            assert getattr(found, field) == getattr(expected, field)

    equal_whole()


@pytest.mark.parametrize(
    ("said", "stable", "unstable"), [("", "", ""), ("one", "", "one"), ("one t", "one ", "t"), ("one ", "one ", "")]
)
def test_word_being_spoken_is_not_stable(model: EncDecCTCModel, said: str, stable: str, unstable: str) -> None:
    greedy = GreedyDecoder(Decoder(model))
    greedy.accept(log_probs_of([VOCABULARY.index(letter) for letter in said]))
    assert (greedy.partial.stable, greedy.partial.unstable) == (stable, unstable)
