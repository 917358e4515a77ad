"""The beam finds the most probable text, however its frames arrive; scorers add what they say, and no more."""

from collections.abc import Sequence
from itertools import groupby, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nemo_ds2_adapters.decoding.beam import Beam, PrefixBeam
from nemo_ds2_adapters.decoding.phrases import Phrases

BLANK = 3  # of three labels: 0, the space, 1 and 2
SPACE = 0
EVERYTHING = Beam(size=10_000, threshold=1e9, label_threshold=1e9, sure_blank=1.1)


def random_log_probs(frames: int, seed: int, sharpness: float = 2.0) -> np.ndarray:
    scores = np.random.default_rng(seed).standard_normal((frames, BLANK + 1)) * sharpness
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def text_of(path: Sequence[int]) -> tuple[int, ...]:
    return tuple(label for label, _ in groupby(path) if label != BLANK)


def exhaustive(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Log probability of every text: the sum over all alignments."""
    found: dict[tuple[int, ...], float] = {}
    for path in product(range(BLANK + 1), repeat=len(log_probs)):
        score = sum(frame[label] for frame, label in zip(log_probs, path))
        text = text_of(path)
        found[text] = np.logaddexp(found.get(text, -np.inf), score)
    return found


def search(log_probs: np.ndarray, *scorers: Phrases, beam: Beam = EVERYTHING) -> PrefixBeam:
    found = PrefixBeam(BLANK, scorers, beam)
    found.accept(log_probs)
    return found


@given(frames=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_a_wide_beam_sums_over_all_alignments(frames: int, seed: int) -> None:
    log_probs = random_log_probs(frames, seed)
    expected = exhaustive(log_probs)
    found = search(log_probs)
    best = max(expected, key=lambda text: expected[text])
    assert tuple(found.best()[0]) == best
    assert sorted(found.scores()) == pytest.approx(sorted(expected.values()))


@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 40), max_size=6), width=st.sampled_from([1, 4, 32]))
def test_any_chunks(seed: int, cuts: list[int], width: int) -> None:
    log_probs = random_log_probs(40, seed)
    words = Phrases([(1, 2), (2, 2, 1)], SPACE, BLANK, 1.5)
    expected = search(log_probs, words, beam=Beam(width))
    chunked, settled = PrefixBeam(BLANK, [words], Beam(width)), ()
    for chunk in np.split(log_probs, sorted(cuts)):
        chunked.accept(chunk)
        stable = tuple(chunked.best()[0][: chunked.settled()])
        assert stable[: len(settled)] == settled  # what is called stable stays
        settled = stable
    assert chunked.best(final=True) == expected.best(final=True)
    assert tuple(chunked.best(final=True)[0][: len(settled)]) == settled


@given(seed=st.integers(0, 10_000), frames=st.integers(1, 40))
def test_of_the_most_probable_alignments_the_best_is_the_greedy_one(seed: int, frames: int) -> None:
    log_probs = random_log_probs(frames, seed)
    found = search(log_probs, beam=Beam(sums=False, sure_blank=1.1)).best(final=True)[0]
    assert tuple(found) == text_of(log_probs.argmax(axis=1).tolist())


@given(path=st.lists(st.integers(0, BLANK), min_size=1, max_size=30), width=st.sampled_from([1, 32]))
def test_what_is_heard_clearly_is_the_greedy_text(path: list[int], width: int) -> None:
    scores = np.full((len(path), BLANK + 1), -12.0)
    scores[np.arange(len(path)), path] = 0.0
    assert tuple(search(scores, beam=Beam(width)).best(final=True)[0]) == text_of(path)


@given(seed=st.integers(0, 10_000))
def test_frames_of_the_text_increase(seed: int) -> None:
    labels, frames = search(random_log_probs(30, seed), beam=Beam(8)).best(final=True)
    assert len(labels) == len(frames)
    for (label, frame), (following, later) in zip(zip(labels, frames), zip(labels[1:], frames[1:])):
        assert later - frame >= 1 + (label == following)


@given(seed=st.integers(0, 10_000))
def test_surely_blank_frames_change_nothing(seed: int) -> None:
    log_probs = random_log_probs(12, seed)
    sure = np.log(np.full((1, BLANK + 1), 1e-9))
    sure[0, BLANK] = np.log1p(-3e-9)
    pieces = np.concatenate([log_probs[:5], sure, sure, log_probs[5:]])
    passed_over = search(pieces, beam=Beam(500, 1e9, 1e9))
    computed = search(pieces, beam=Beam(500, 1e9, 1e9, sure_blank=1.1))
    assert passed_over.best()[0] == computed.best()[0]
    assert passed_over.scores().max() == pytest.approx(computed.scores().max(), abs=1e-6)


@given(
    text=st.lists(st.integers(0, 2), max_size=14),
    phrases=st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=4).map(tuple), min_size=1, max_size=4),
)
def test_words_add_for_their_letters_and_for_nothing_else(text: list[int], phrases: list[tuple[int, ...]]) -> None:
    words = Phrases(phrases, SPACE, BLANK, 2.0)
    state, added = words.start, 0.0
    for label in text:
        added += words.scores[state, label]
        state = words.advance(state, label)
    said = [tuple(group) for is_space, group in groupby(text, lambda label: label == SPACE) if not is_space]
    expected = sum(2.0 * len(word) for word in said if word in set(phrases))
    assert added + words.final(state) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("ab ba", 4),  # a phrase that begins with another one
        ("ab ab ba", 6),  # it begins again in the middle of itself
        ("ab", 2),
        ("aab ba", 0),  # within another word
        ("ab bab", 2),
        ("ab  ba", 2),
    ],
)
def test_phrases_of_several_words(text: str, letters: int) -> None:
    numbers = {" ": SPACE, "a": 1, "b": 2}
    words = Phrases([[numbers[c] for c in phrase] for phrase in ("ab", "ab ba")], SPACE, BLANK, 1.0)
    state, added = words.start, 0.0
    for character in text:
        added += words.scores[state, numbers[character]]
        state = words.advance(state, numbers[character])
    assert added + words.final(state) == pytest.approx(letters)


def spoken(text: str, also: dict[int, str]) -> np.ndarray:
    """Frames that say a text, a blank between letters; at some, another letter is nearly as probable."""
    numbers = {" ": SPACE, "a": 1, "b": 2}
    frames = []
    for place, letter in enumerate(text):
        frame = np.full(BLANK + 1, 1e-7)
        frame[numbers[letter]] = 1.0
        if place in also:
            frame[numbers[also[place]]] = 0.3
        blank = np.full(BLANK + 1, 1e-7)
        blank[BLANK] = 1.0
        frames += [frame, blank]
    return np.log(np.array(frames) / np.sum(frames, axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("text", "also", "expected"),
    [
        ("aa ba", {}, "aa ba"),  # nothing sounds like it
        ("aa ba", {1: "b"}, "ab ba"),
        ("aab ba", {1: "b"}, "aab ba"),  # not within a word
        ("aa", {1: "b"}, "ab"),  # at the end
        ("b aa b", {3: "b"}, "b ab b"),
    ],
)
def test_a_word_is_found_where_it_was_nearly_heard(text: str, also: dict[int, str], expected: str) -> None:
    words = Phrases([(1, 2)], SPACE, BLANK, 2.0)
    labels, _ = search(spoken(text, also), words, beam=Beam()).best(final=True)
    assert "".join(" ab"[label] for label in labels) == expected


@given(seed=st.integers(0, 10_000), bonus=st.sampled_from([1.0, 4.0, 20.0]))
def test_hopes_that_come_to_nothing_change_little(seed: int, bonus: float) -> None:
    """Phrases whose last letter is never heard: what they promise drives nothing out that is much more probable."""
    log_probs = random_log_probs(30, seed)
    log_probs[:, 2] = -30.0
    words = Phrases([(1, 1, 2), (1, SPACE, 1, 2)], SPACE, BLANK, bonus)
    found = search(log_probs, words, beam=Beam()).best(final=True)[0]
    plain = search(log_probs, beam=Beam()).best(final=True)[0]
    assert sum_of(log_probs, found) > sum_of(log_probs, plain) - 1.0


def sum_of(log_probs: np.ndarray, labels: list[int]) -> float:
    """Log probability of a text: all its alignments."""
    targets = torch.tensor([labels]) + 1  # PyTorch's blank is 0
    inputs = torch.from_numpy(np.roll(log_probs, 1, axis=1))[:, None]
    sizes = torch.tensor([len(log_probs)]), torch.tensor([len(labels)])
    return -torch.nn.functional.ctc_loss(inputs, targets, *sizes, reduction="sum").item()


def test_no_bonus_writes_a_word_without_a_sound_of_it() -> None:
    words = Phrases([(1, 2, 1)], SPACE, BLANK, 100.0)
    labels, _ = search(spoken("bb bb", {}), words, beam=Beam()).best(final=True)
    assert "".join(" ab"[label] for label in labels) == "bb bb"
