"""CTC prefix beam search, one frame after the other, with scorers that know more than the sound.

It can sum over all alignments of a text (Graves 2012, Hannun et al. 2014): with a wide enough beam the best text is
then the most probable one, not that of the most probable alignment. Scorers are automata over the model's labels: a
person's words, a language model. Nothing depends on how the frames come in pieces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

# A text: the one before its last label, that label, its length, the frame in which it was written; None is empty.
Node = tuple["Node", int, int, int] | None
NO_LABEL = -1
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # of the hashes by which equal texts are known


class Scorer(Protocol):
    """An automaton over labels, which adds something to a text's log probability with every label it gets.

    Attributes:
        start: state of the empty text.
        scores: `[states, labels]`, what a state adds for each label; natural logarithm.
    """

    start: int
    scores: np.ndarray

    @property
    def hopes(self) -> np.ndarray | None:
        """`[states, labels]`, what a text that gets this label would be worth beyond that if all goes well: it helps
        to stay in the beam, and is never added. None: it never hopes."""

    def advance(self, state: int, label: int) -> int:
        """The state after a label."""

    def final(self, state: int) -> float:
        """What is added when the text ends."""

    def keep(self, states: Sequence[int]) -> list[int]:
        """These states' new numbers; others may be forgotten."""


@dataclass(frozen=True)
class Beam:
    """How much is searched. Logarithms are natural.

    Args:
        size: texts that are followed at once; a quarter more, those that are best without hopes.
        threshold: a text that is less probable than the best by more is given up.
        label_threshold: a label that is less probable than the frame's best by more cannot be written, whatever a
            scorer says.
        sure_blank: probability of the blank from which a frame changes nothing, and is passed over.
        sums: a text is as probable as all its alignments together; false: as the most probable one of them, so that
            without scorers the best text is the greedy one.
    """

    size: int = 64
    threshold: float = 20.0
    label_threshold: float = 8.0
    sure_blank: float = 0.9999
    sums: bool = True


class PrefixBeam:
    """The most probable texts of the frames so far.

    Args:
        blank: number of CTC's blank.
        scorers: what adds to the log probabilities of the model.
        beam: how much is searched.
    """

    KEEP_EVERY = 500  # frames after which scorers may forget

    def __init__(self, blank: int, scorers: Sequence[Scorer] = (), beam: Beam = Beam()) -> None:
        self._blank = blank
        self._scorers = tuple(scorers)
        self._beam = beam
        self._sure = np.log(beam.sure_blank)
        self._join = np.logaddexp if beam.sums else np.maximum
        self._frames = 0
        self._settled = 0
        # One entry per text. Sums over alignments that end in a blank, and that do not; what scorers added, and hope
        # for; last label; hash of the text, and of the text without its last label.
        self._nodes: list[Node] = [None]
        self._ends_blank = np.zeros(1)
        self._ends_label = np.full(1, -np.inf)
        self._added = np.zeros(1)
        self._hoped = np.zeros(1)
        self._last = np.full(1, NO_LABEL)
        self._hash = np.ones(1, np.uint64)
        self._parent = np.zeros(1, np.uint64)
        self._states = [np.full(1, scorer.start) for scorer in self._scorers]

    def accept(self, log_probs: np.ndarray) -> None:
        """Take the next frames `[T, V]`, natural logarithms of probabilities."""
        for frame in log_probs.astype(np.float64):
            if frame[self._blank] >= self._sure:
                self._ends_blank = self._join(self._ends_blank, self._ends_label) + frame[self._blank]
                self._ends_label = np.full(len(self._nodes), -np.inf)
            else:
                self._step(frame)
            self._frames += 1
            if self._frames % self.KEEP_EVERY == 0:
                kept = [scorer.keep(states.tolist()) for scorer, states in zip(self._scorers, self._states)]
                self._states = [np.array(states) for states in kept]

    def scores(self) -> np.ndarray:
        """Log probability of each text, with what scorers added."""
        return self._join(self._ends_blank, self._ends_label) + self._added

    def final_scores(self) -> np.ndarray:
        """As `scores`, if the texts end here."""
        ends = [[scorer.final(s) for s in states.tolist()] for scorer, states in zip(self._scorers, self._states)]
        return self.scores() + np.sum(ends, axis=0) if ends else self.scores()

    def best(self, final: bool = False) -> tuple[list[int], list[int]]:
        """Labels of the most probable text, and from which frame each was written; `final` if the text ends here."""
        node = self._nodes[int((self.final_scores() if final else self.scores() + self._hoped).argmax())]
        labels, frames = [], []
        while node is not None:
            node, label, _, frame = node
            labels.append(label)
            frames.append(frame)
        return labels[::-1], frames[::-1]

    def settled(self) -> int:
        """With how many labels all texts that are followed begin alike: these stay."""
        nodes = {id(node): node for node in self._nodes}
        while len(nodes) > 1:
            longest = max(_length(node) for node in nodes.values())
            nodes = {
                id(before): before
                for node in nodes.values()
                for before in [node[0] if node is not None and node[2] == longest else node]
            }
        # The same text may have been reached twice, so that what is alike is known only further back.
        self._settled = max(self._settled, *map(_length, nodes.values()))
        return self._settled

    def _step(self, frame: np.ndarray) -> None:
        count = len(self._nodes)
        total = self._join(self._ends_blank, self._ends_label)
        ends_blank = total + frame[self._blank]
        ends_label = self._ends_label + frame[self._last]  # of the empty text it is -inf, whatever is added

        written = frame >= frame.max() - self._beam.label_threshold
        written[self._blank] = False
        labels = np.flatnonzero(written)
        emitted = total[:, None] + frame[labels]  # [count, labels]
        repeats, columns = np.nonzero(self._last[:, None] == labels)
        emitted[repeats, columns] = self._ends_blank[repeats] + frame[labels[columns]]
        # A text that another one becomes by its next label is followed already: they are one.
        children, parents = np.nonzero(self._parent[:, None] == self._hash)
        if len(children):
            columns = np.searchsorted(labels, self._last[children])
            known = written[self._last[children]]
            children, parents, columns = children[known], parents[known], columns[known]
            ends_label[children] = self._join(ends_label[children], emitted[parents, columns])
            emitted[parents, columns] = -np.inf

        added = np.repeat(self._added[:, None], len(labels), axis=1)
        hoped = np.zeros_like(added)
        for scorer, states in zip(self._scorers, self._states):
            added += scorer.scores[states[:, None], labels]
            if scorer.hopes is not None:
                hoped += scorer.hopes[states[:, None], labels]
        sure = np.concatenate([self._join(ends_blank, ends_label) + self._added, (emitted + added).ravel()])
        hopes = np.concatenate([self._hoped, hoped.ravel()])
        kept = self._kept(sure + hopes, self._beam.size)
        if hopes.any():  # or a word that is never completed could drive out what was said in its place
            kept = np.union1d(kept, self._kept(sure, max(1, self._beam.size // 4)))

        stay = kept[kept < count]
        origins, columns = np.divmod(kept[kept >= count] - count, max(len(labels), 1))
        new = labels[columns]
        self._nodes = [self._nodes[i] for i in stay.tolist()] + [
            _extended(self._nodes[i], label, self._frames) for i, label in zip(origins.tolist(), new.tolist())
        ]
        self._ends_blank = np.concatenate([ends_blank[stay], np.full(len(new), -np.inf)])
        self._ends_label = np.concatenate([ends_label[stay], emitted[origins, columns]])
        self._added = np.concatenate([self._added[stay], added[origins, columns]])
        self._hoped = np.concatenate([self._hoped[stay], hoped[origins, columns]])
        self._last = np.concatenate([self._last[stay], new])
        self._parent = np.concatenate([self._parent[stay], self._hash[origins]])
        hashes = self._hash[origins] * MULTIPLIER + new.astype(np.uint64) + np.uint64(1)
        self._hash = np.concatenate([self._hash[stay], hashes ^ (hashes >> np.uint64(29))])
        for number, (scorer, states) in enumerate(zip(self._scorers, self._states)):
            moved = [scorer.advance(s, label) for s, label in zip(states[origins].tolist(), new.tolist())]
            self._states[number] = np.concatenate([states[stay], np.array(moved, int)])

    def _kept(self, ranked: np.ndarray, size: int) -> np.ndarray:
        """The best, in their order."""
        kept = np.arange(len(ranked))
        if len(ranked) > size:
            kept = np.sort(np.argpartition(-ranked, size - 1)[:size])
        return kept[ranked[kept] >= max(ranked.max() - self._beam.threshold, np.finfo(float).min)]


def _extended(node: Node, label: int, frame: int) -> Node:
    return node, label, _length(node) + 1, frame


def _length(node: Node) -> int:
    return 0 if node is None else node[2]
