"""Random sentences of AN4's kind."""

import random
import re

import pytest

from demo.sentences import distinct_sentences, number_words, random_sentence, sentence_sets


def test_sentences_are_lower_case_words_with_single_blanks() -> None:
    for sentence in distinct_sentences(2000, random.Random(1)):
        assert re.fullmatch(r"[a-z]+( [a-z]+)*", sentence), sentence


def test_sentences_are_distinct_and_as_many_as_asked_for() -> None:
    sentences = distinct_sentences(2000, random.Random(1))
    assert len(sentences) == len(set(sentences)) == 2000
    assert distinct_sentences(0, random.Random(1)) == []


def test_seed_decides_the_sentences() -> None:
    assert distinct_sentences(50, random.Random(1)) == distinct_sentences(50, random.Random(1))
    assert distinct_sentences(50, random.Random(1)) != distinct_sentences(50, random.Random(2))


def test_all_letters_and_kinds_occur() -> None:
    rng = random.Random(0)
    sentences = [random_sentence(rng) for _ in range(1000)]
    words = {word for sentence in sentences for word in sentence.split()}
    assert set("abcdefghijklmnopqrstuvwxyz") <= words
    assert {"erase", "rubout", "enter", "yes", "no", "oh", "zero", "march", "third", "hundred", "thousand"} <= words
    average = sum(map(len, sentences)) / len(sentences)
    assert 15 < average < 30  # characters; AN4 has 19.5


def test_negative_count_is_an_error() -> None:
    with pytest.raises(ValueError, match="-1"):
        distinct_sentences(-1, random.Random(0))


def test_sets_of_a_speaker_are_disjoint() -> None:
    sets = sentence_sets("anna", train=40, validation=10, test=40)
    assert (len(sets.train), len(sets.validation), len(sets.test)) == (40, 10, 40)
    assert len({*sets.train, *sets.validation, *sets.test}) == 90


def test_sets_depend_on_speaker_and_seed_but_the_test_set_not_on_the_size_of_the_others() -> None:
    sets = sentence_sets("anna", 40, 10, 40)
    assert sets == sentence_sets("anna", 40, 10, 40)
    assert sets.test == sentence_sets("anna", 80, 5, 40).test
    assert sets.test != sentence_sets("boris", 40, 10, 40).test
    assert sets.test != sentence_sets("anna", 40, 10, 40, seed=1).test


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (7, "seven"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety nine"),
        (500, "five hundred"),
        (643, "six hundred forty three"),
        (1000, "one thousand"),
        (4386, "four thousand three hundred eighty six"),
        (9010, "nine thousand ten"),
    ],
)
def test_numbers_in_words(number: int, words: str) -> None:
    assert number_words(number) == words


@pytest.mark.parametrize("number", [-1, 10_000])
def test_number_out_of_range_is_an_error(number: int) -> None:
    with pytest.raises(ValueError, match=str(number)):
        number_words(number)
