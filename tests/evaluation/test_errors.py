"""Errors are counted once, in one Unicode form, and add up over utterances."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nemo.collections.asr.metrics.wer import word_error_rate_detail

from nemo_ds2_adapters.evaluation.errors import Score, score, unit_errors

texts = st.lists(st.text("ab ", max_size=12).map(str.strip), min_size=1, max_size=5)


def test_errors() -> None:
    assert score("one too", "one two three") == Score(words=3, word_errors=2, characters=13, character_errors=7)
    assert score("abd", "abc").character_errors == 1
    assert unit_errors([1, 2, 2, 5], [1, 2, 4, 5, 5]) == 2 and unit_errors([], []) == 0
    assert score("", "a b") == Score(2, 2, 3, 3) and score("", "") == Score()


def test_graphemes_and_syllables_are_the_same_text() -> None:
    syllables, graphemes = "홍길동 가자", unicodedata.normalize("NFD", "홍길동 가자")
    assert syllables != graphemes
    assert score(graphemes, syllables) == Score(words=2, characters=6)


def test_totals_weigh_words_not_utterances() -> None:
    total = sum([score("a b c d", "a b c d"), score("y z", "x")], Score())
    assert (total.wer, total.words) == (pytest.approx(2 / 5), 5)
    assert total.cer == pytest.approx(3 / 8)


def test_without_words_there_is_no_rate() -> None:
    assert score("noise", "").wer is None and score("noise", "").cer is None
    assert score("noise", "").word_errors == 1


@given(texts, texts)
def test_rates_are_nemos(hypotheses: list[str], references: list[str]) -> None:
    pairs = list(zip(hypotheses, references))
    total = sum((score(hypothesis, reference) for hypothesis, reference in pairs), Score())
    wer, words, *_ = word_error_rate_detail(*zip(*pairs))
    cer, *_ = word_error_rate_detail(*zip(*pairs), use_cer=True)
    assert total.words == words
    assert total.wer == (pytest.approx(wer) if words else None)
    assert total.cer == (pytest.approx(cer) if total.characters else None)
