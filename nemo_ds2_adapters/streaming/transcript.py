"""The text of a stream, in segments that end where somebody pauses."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis

from nemo_ds2_adapters.decoding.decoder import SPANS
from nemo_ds2_adapters.decoding.incremental import IncrementalDecoder, Partial


class Transcript:
    """What has been said in a stream.

    Where the blank was the best unit for so long, the segment ends: its text is final. Silence alone makes no segment,
    and nothing of it is kept.

    Args:
        new_decoder: makes one for a segment.
        blank: number of the blank.
        frame_seconds: seconds between frames.
        pause_seconds: how long a pause ends a segment; inf: none does.
    """

    def __init__(
        self, new_decoder: Callable[[], IncrementalDecoder], blank: int, frame_seconds: float, pause_seconds: float
    ) -> None:
        self.segments: list[Hypothesis] = []
        self._new_decoder = new_decoder
        self._decoder = new_decoder()
        self._blank = blank
        self._frame_seconds = frame_seconds
        self._pause_frames = pause_seconds / frame_seconds
        self._blanks = 0  # at the end of what was accepted
        self._start = 0  # frame at which the segment begins
        self._frames = 0  # accepted

    @property
    def partial(self) -> Partial:
        """The text so far."""
        now = self._decoder.partial
        if not self.segments:
            return now
        before = joined_texts(self.segments)
        text = now.text.lstrip()
        stable = now.stable[len(now.text) - len(text) :]
        return Partial(f"{before} {stable}" if text else before, text[len(stable) :])

    def accept(self, log_probs: np.ndarray) -> None:
        """Take the next frames, `[T, V]`."""
        begin = 0
        for number, best in enumerate(log_probs.argmax(axis=-1).tolist(), 1):
            self._blanks = self._blanks + 1 if best == self._blank else 0
            if self._blanks >= self._pause_frames:
                self._decode(log_probs[begin:number])
                begin = number
                self._end_segment()
        self._decode(log_probs[begin:])

    def finish(self) -> Hypothesis:
        """All that was said; nothing is accepted after.

        Times are those of the stream. `y_sequence`, `timestep` and `frame_confidence` leave out silence.
        """
        self._end_segment(is_last=True)
        return join_segments(self.segments)

    def _decode(self, log_probs: np.ndarray) -> None:
        if len(log_probs):
            self._decoder.accept(log_probs)
            self._frames += len(log_probs)

    def _end_segment(self, is_last: bool = False) -> None:
        if self._decoder.partial.text.strip() or (is_last and not self.segments):
            segment = self._decoder.finish()
            _shift(segment, self._start, self._frame_seconds)
            self.segments.append(segment)
        self._blanks, self._start = 0, self._frames
        self._decoder = self._new_decoder()


def joined_texts(segments: Sequence[Hypothesis]) -> str:
    """The text of several segments."""
    return " ".join(str(segment.text).strip() for segment in segments)


def join_segments(segments: Sequence[Hypothesis]) -> Hypothesis:
    """Several hypotheses as one; a single one as it is."""
    if len(segments) == 1:
        return segments[0]
    timestamp: dict[str, Any] = {kind: [span for s in segments for span in s.timestamp[kind]] for kind in SPANS}
    timestamp["timestep"] = []
    length = 0
    for segment in segments:
        timestamp["timestep"] += [frame + length for frame in segment.timestamp["timestep"]]
        length += int(segment.length)
    confidences = {
        name: [value for segment in segments for value in getattr(segment, name) or ()]
        for name in ("word_confidence", "token_confidence", "frame_confidence")
    }
    return Hypothesis(
        score=sum(segment.score for segment in segments),
        y_sequence=torch.cat([torch.as_tensor(segment.y_sequence) for segment in segments]),
        text=joined_texts(segments),
        timestamp=timestamp,
        length=length,
        **confidences,
    )


def _shift(segment: Hypothesis, frames: int, frame_seconds: float) -> None:
    """Make the times those of the stream; those of a segment at its beginning stay as they are."""
    if not frames:
        return
    for kind in SPANS:
        for span in segment.timestamp[kind]:
            for end in ("start", "end"):
                span[f"{end}_offset"] += frames
                span[end] = span[f"{end}_offset"] * frame_seconds
