"""A word language model that decoding listens to: KenLM's probabilities, spread over the letters of the words.

A word counts when the space behind it is written. So that a text need not wait for it, every letter is given what the
most frequent word that begins so would get (Ortmanns & Ney 2000), and the word's end the difference. Words that the
model does not know can be written letter by letter.
"""

import math
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nemo_ds2_adapters.decoding.kneser_ney import END, START, UNKNOWN
from nemo_ds2_adapters.errors import InputError

LOG10 = math.log(10)
LEAST = -10.0  # log10: what an unknown word gets of a file without one, to which KenLM gives -100
MAX_STATES = 20_000  # of one text; beyond, those that nobody is in are forgotten

Branch = tuple[int, int, int]  # words first to last (exclusive) of the sorted list, which agree in so many letters
State = tuple[tuple[int, ...], Branch | None]  # the words before, and the letters of this one; None: an unknown word


class LanguageModel:
    """An ARPA file, for one model's labels. Any number of texts can use it at the same time.

    Args:
        path: of the ARPA file; its words are spelled as the model writes them.
        labels: of the model, without the blank; one of them is the space.
        weight: of its logarithms, beside those of the model.
        word_bonus: added for each word; natural logarithm.
        letter_penalty: added for each letter of an unknown word, beside what the language model gives it.

    Raises:
        InputError: `flashlight-text` is not installed, or the file is no ARPA file, or none of its words can be
            written with the labels.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        labels: Sequence[str],
        weight: float = 0.5,
        word_bonus: float = 1.0,
        letter_penalty: float = -1.0,
    ) -> None:
        self.path = Path(path)
        self.weight, self.word_bonus, self.letter_penalty = weight, word_bonus, letter_penalty
        self.space = labels.index(" ")
        self.labels = len(labels)
        numbers = {label: number for number, label in enumerate(labels)}
        order, unigrams = _unigrams(self.path)
        spelled = sorted(
            (tuple(numbers[letter] for letter in word), word) for word in unigrams if set(word) <= numbers.keys()
        )
        if not spelled:
            raise InputError(f"{path}: the model can write none of its words; it has the labels {''.join(labels)!r}")
        self.words = [letters for letters, _ in spelled]
        self._unigrams = np.array([unigrams[word] for _, word in spelled])
        self._kenlm = _open(self.path, [word for _, word in spelled])
        self.unknown = len(spelled)  # number of the unknown word
        self.root: Branch = (0, len(spelled), 0)
        self.children = lru_cache(100_000)(self._children)
        self.longest_history = order - 1

    def start(self) -> Any:
        """KenLM's state at the start of a sentence."""
        return self._kenlm.start(False)

    def word(self, state: Any, number: int) -> tuple[Any, float]:
        """The state after a word, and its weighted log probability."""
        after, log10 = self._kenlm.score(state, number)
        return after, self.weight * LOG10 * max(log10, LEAST)

    def end(self, state: Any) -> float:
        """Weighted log probability that the sentence ends."""
        return self.weight * LOG10 * self._kenlm.finish(state)[1]

    def expected(self, branch: Branch) -> float:
        """Weighted log probability of the most frequent of the words."""
        first, last, depth = branch
        return self.weight * LOG10 * float(self._unigrams[first:last].max()) if depth else 0.0

    def _children(self, branch: Branch) -> Mapping[int, tuple[Branch, float]]:
        """By label, the words that go on with it, and what they are expected to get."""
        first, last, depth = branch
        found = {}
        if len(self.words[first]) == depth:
            first += 1  # the word that ends here
        while first < last:
            prefix = self.words[first][: depth + 1]
            end = bisect_right(self.words, prefix, first, last, key=lambda word: word[: depth + 1])
            child = (first, end, depth + 1)
            found[prefix[-1]] = child, self.expected(child)
            first = end
        return found


class Reader:
    """A language model that reads one text, a `Scorer`: states are made as texts come to them."""

    hopes = None  # what a letter adds is what its word may be expected to

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._clear()
        self._kenlm: dict[tuple[int, ...], Any] = {(): model.start()}
        self.start = self._number(((), model.root))

    def advance(self, state: int, label: int) -> int:
        model, (history, branch) = self._model, self._states[state]
        if label != model.space:
            child = None if branch is None else model.children(branch).get(label)
            return self._number((history, child[0] if child else None))
        if branch == model.root:
            return state
        number = self._word(branch)
        after = (*history, number)[-model.longest_history :] if model.longest_history else ()
        if after not in self._kenlm:
            self._kenlm[after] = model.word(self._kenlm[history], number)[0]
        return self._number((after, model.root))

    def final(self, state: int) -> float:
        model, (history, branch) = self._model, self._states[state]
        if branch == model.root:
            return model.end(self._kenlm[history])
        number = self._word(branch)
        after, _ = model.word(self._kenlm[history], number)
        return float(self.scores[state, model.space]) + model.end(after)

    def keep(self, states: Sequence[int]) -> list[int]:
        if len(self._states) < MAX_STATES:
            return list(states)
        kept = [self._states[state] for state in states]
        kenlm = {history: self._kenlm[history] for history, _ in kept}
        self._clear()
        self._kenlm = kenlm | {(): self._model.start()}
        self.start = self._number(((), self._model.root))
        return [self._number(state) for state in kept]

    def _clear(self) -> None:
        self._states: list[State] = []
        self._numbers: dict[State, int] = {}
        self.scores = np.zeros((256, self._model.labels))

    def _word(self, branch: Branch | None) -> int:
        """Number of the word that ends here."""
        if branch is None or len(self._model.words[branch[0]]) > branch[2]:
            return self._model.unknown
        return branch[0]

    def _number(self, state: State) -> int:
        if state not in self._numbers:
            if len(self._states) == len(self.scores):
                self.scores = np.concatenate([self.scores, np.zeros_like(self.scores)])
            self.scores[len(self._states)] = self._row(state)
            self._numbers[state] = len(self._states)
            self._states.append(state)
        return self._numbers[state]

    def _row(self, state: State) -> np.ndarray:
        model, (history, branch) = self._model, state
        kenlm = self._kenlm[history]
        if branch is None:
            row = np.full(model.labels, model.letter_penalty)
            row[model.space] = model.word_bonus
            return row
        _, unknown = model.word(kenlm, model.unknown)
        expected = model.expected(branch)
        # Whoever leaves the words that are known is charged for all letters so far.
        row = np.full(model.labels, unknown - expected + (branch[2] + 1) * model.letter_penalty)
        for label, (_, value) in model.children(branch).items():
            row[label] = value - expected
        if branch == model.root:
            row[model.space] = 0.0
        else:
            number = self._word(branch)
            _, value = model.word(kenlm, number)
            letters = branch[2] * model.letter_penalty if number == model.unknown else 0.0
            row[model.space] = value + letters - expected + model.word_bonus
        return row


def _unigrams(path: Path) -> tuple[int, dict[str, float]]:
    """Order of an ARPA file, and its words with their log10 probabilities, its marks left out."""
    order, words, section = 0, {}, ""
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("\\"):
                    if section == "\\1-grams:":
                        break
                    section = line.strip()
                elif section == "\\data\\" and line.startswith("ngram "):
                    order += 1
                elif section == "\\1-grams:" and (fields := line.split()):
                    words[fields[1]] = float(fields[0])
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{path}: cannot be read as an ARPA file ({error})") from error
    if not words:
        raise InputError(f"{path}: is no ARPA file, it has no section \\1-grams:; make one with ds2-adapters lm")
    return order, {word: value for word, value in words.items() if word not in (START, END, UNKNOWN, "<UNK>")}


def _open(path: Path, words: Sequence[str]) -> Any:
    """KenLM, which knows these words by their numbers, and the unknown word by the next."""
    try:
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary
    except ImportError as error:
        raise InputError(
            "a language model needs KenLM, which flashlight-text brings: pip install 'nemo_ds2_adapters[lm]'"
        ) from error
    try:
        return KenLM(str(path), Dictionary([*words, UNKNOWN]))
    except RuntimeError as error:  # which is all it raises
        raise InputError(f"{path}: KenLM cannot read it ({' '.join(str(error).split())})") from error
