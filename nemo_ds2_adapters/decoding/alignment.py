"""A text, and the frames in which it was said."""

from collections.abc import Sequence

import numpy as np


def path_of(log_probs: np.ndarray, labels: Sequence[int], frames: Sequence[int], blank: int) -> np.ndarray:
    """An alignment of a text: each label where it is most probable, and where it goes on.

    Args:
        log_probs: `[T, V]`.
        labels: of the text.
        frames: from which each was written; increasing, by at least 2 where a label is repeated.
        blank: number of CTC's blank.

    Returns:
        `[T]` the label, or the blank, of each frame; without repetitions and blanks they are the text.
    """
    path = np.full(len(log_probs), blank)
    best = log_probs.argmax(axis=1)
    free = 0  # the first frame that no label before has taken
    for number, (label, first) in enumerate(zip(labels, frames)):
        end = len(log_probs)
        if number + 1 < len(labels):
            end = frames[number + 1] - (labels[number + 1] == label)  # a blank stands between two that are the same
        start = stop = first + int(log_probs[first:end, label].argmax())
        while start > free and best[start - 1] == label:
            start -= 1
        while stop + 1 < end and best[stop + 1] == label:
            stop += 1
        path[start : stop + 1] = label
        free = stop + 1 + (number + 1 < len(labels) and labels[number + 1] == label)
    return path


def following(log_probs: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Log probabilities `[T, V]` whose most probable path is this one.

    What was more probable than the path's label is made a little less so, and each frame sums to one again: so a
    label that the sound hardly supports is not taken for a confident one.
    """
    chosen = np.take_along_axis(log_probs, path[:, None], axis=1)
    others = np.arange(log_probs.shape[1]) != path[:, None]
    capped = np.where(others, np.minimum(log_probs, chosen - 1e-3), log_probs).astype(np.float64)
    return (capped - np.logaddexp.reduce(capped, axis=1, keepdims=True)).astype(np.float32)
