"""A person's words, which decoding favours: an automaton that adds to a text as it spells one of them.

Each phrase stands between two spaces, so it is found as whole words only. All of them are one automaton (Aho &
Corasick 1975), in which a text is always in the state of the longest piece of a phrase that it ends with. A phrase
that is not completed adds nothing.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules.unicode_form import Form


class Phrases:
    """The automaton, a `Scorer`.

    Args:
        phrases: labels of each, without spaces around it.
        space: label of the space.
        labels: how many there are, without the blank.
        bonus: added for each label of a phrase but spaces, which say little of it; natural logarithm.
    """

    def __init__(self, phrases: Sequence[Sequence[int]], space: int, labels: int, bonus: float) -> None:
        children: list[dict[int, int]] = [{}]
        pending = [0.0]  # of each state: for the letters so far of a phrase that is not complete
        earned = [0.0]  # by a text that enters it
        for phrase in sorted(set(map(tuple, phrases)), key=len):  # shorter ones first: longer ones go through them
            state = 0
            for label in (space, *phrase, space):
                if label not in children[state]:
                    children[state][label] = len(children)
                    children.append({})
                    pending.append(pending[state] + (bonus if label != space else 0.0))
                    earned.append(0.0)
                state = children[state][label]
            earned[state], pending[state] = pending[state], 0.0
        self._space = space
        self._next = np.zeros((len(children), labels), np.int64)
        fails = [0] * len(children)
        order = [0]
        for state in order:
            self._next[state] = self._next[fails[state]] if state else 0
            for label, child in children[state].items():
                fails[child] = int(self._next[state, label]) if state else 0
                self._next[state, label] = child
                order.append(child)
            earned[state] = earned[state] or earned[fails[state]]
            pending[state] = max(pending[state], pending[fails[state]])
        self.scores = np.array(earned)[self._next]
        self.hopes = np.array(pending)[self._next]
        self.start = int(self._next[0, space])

    def advance(self, state: int, label: int) -> int:
        return int(self._next[state, label])

    def final(self, state: int) -> float:
        """The end of a text is the end of a word."""
        return float(self.scores[state, self._space])

    def keep(self, states: Sequence[int]) -> list[int]:
        return list(states)


def spelled(word: str, labels: Sequence[str], form: Form | None = None) -> tuple[int, ...]:
    """A word as a model writes it, numbers of its labels: as it stands or, if the model knows no capitals, without.

    Args:
        word: any.
        labels: of the model, one character each.
        form: `NFC` or `NFD`, the Unicode form of the labels; None takes the word as it stands.

    Raises:
        InputError: the model cannot write it; names the word and the characters.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    texts = [unicodedata.normalize(form, text) if form else text for text in (word, word.lower())]
    for text in texts:
        if all(character in numbers for character in text):
            return tuple(numbers[character] for character in text)
    unknown = " ".join(repr(character) for character in dict.fromkeys(texts[1]) if character not in numbers)
    raise InputError(f"word {word!r}: the model cannot write {unknown}; spell it with {''.join(labels)!r}")
