"""Long recordings in overlapping windows, and the model's output for them as if it were for one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from numbers import Real

import numpy as np

from nemo_ds2_adapters.errors import InputError

LEAST_SECONDS = 1.0  # of a window


@dataclass(frozen=True)
class Window:
    """Part of a recording, in output frames of the model.

    Args:
        start: first frame.
        stop: frame after the last one; None for the end of the recording.
        first_kept: first frame that is taken from this window; those before come from the one before it.
        last_kept: frame after the last one that is taken from this window; None for all.
    """

    start: int = 0
    stop: int | None = None
    first_kept: int = 0
    last_kept: int | None = None

    def seconds(self, frame_seconds: float, recording: float) -> float:
        """How long it is, in a recording of so many seconds."""
        stop = recording if self.stop is None else self.stop * frame_seconds
        return stop - self.start * frame_seconds

    def kept(self, log_probs: np.ndarray) -> np.ndarray:
        """What the recording takes of this window's `[T, V]`."""
        last = None if self.last_kept is None else self.last_kept - self.start
        return log_probs[self.first_kept - self.start : last]


def plan_windows(frames: float, max_frames: float, overlap_frames: float) -> list[Window]:
    """Cut a recording into windows; where two overlap, each serves the half next to its own middle.

    Args:
        frames: length of the recording in output frames.
        max_frames: longest window; at least 1, of what is not whole the whole part counts.
        overlap_frames: how far neighbours overlap, at least; below `max_frames`, the whole part counts.

    Returns:
        windows of equal length, but for the last one's end; one window if the recording is short enough.
    """
    if frames <= max_frames:
        return [Window()]
    max_frames, overlap_frames = int(max_frames), int(overlap_frames)
    count = ceil((frames - overlap_frames) / (max_frames - overlap_frames))
    starts = [round(i * (frames - max_frames) / (count - 1)) for i in range(count)]
    cuts = [0, *((a + max_frames + b) // 2 for a, b in pairwise(starts))]
    return [
        Window(start, start + max_frames if cut_after else None, cut, cut_after)
        for start, cut, cut_after in zip(starts, cuts, [*cuts[1:], None])
    ]


def join_windows(windows: Sequence[Window], log_probs: Sequence[np.ndarray]) -> np.ndarray:
    """The windows' `[T, V]` as one for the whole recording."""
    return np.concatenate([window.kept(output) for window, output in zip(windows, log_probs)])


def check_window_seconds(max_seconds: float, overlap_seconds: float) -> None:
    """Refuse settings with which the windows would not advance, or would be too short for a word.

    Raises InputError: shows both values.
    """
    are_numbers = isinstance(max_seconds, Real) and isinstance(overlap_seconds, Real)
    if not are_numbers or not (max_seconds >= LEAST_SECONDS and 0 <= overlap_seconds <= max_seconds / 2):
        raise InputError(
            f"max_seconds={max_seconds}, overlap_seconds={overlap_seconds}: expected windows of at least "
            f"{LEAST_SECONDS:g} s, inf for none, and an overlap of 0 to half a window"
        )
