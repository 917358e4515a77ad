"""Errors are counted in one Unicode form."""

import unicodedata

from nemo_ds2_adapters.evaluation.error_counts import character_errors, token_errors, word_errors


def test_errors() -> None:
    assert (word_errors("one too", "one two three"), character_errors("abd", "abc")) == (2, 1)
    assert token_errors([1, 2, 2, 5], [1, 2, 4, 5, 5]) == 2 and token_errors([], []) == 0
    assert word_errors("", "a b") == 2 and character_errors("", "") == 0


def test_graphemes_and_syllables_are_the_same_text() -> None:
    syllables, graphemes = "홍길동 가자", unicodedata.normalize("NFD", "홍길동 가자")
    assert syllables != graphemes
    assert word_errors(graphemes, syllables) == character_errors(graphemes, syllables) == 0
