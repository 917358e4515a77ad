"""Decoding while somebody speaks."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis


@dataclass(frozen=True)
class Partial:
    """The text so far: `stable + unstable`.

    Args:
        stable: stays as it is, whatever is said next.
        unstable: may still become something else.
    """

    stable: str = ""
    unstable: str = ""

    @property
    def text(self) -> str:
        """Both parts."""
        return self.stable + self.unstable


class IncrementalDecoder(Protocol):
    """Turns the log probabilities of one stretch of speech into text while they arrive."""

    def accept(self, log_probs: np.ndarray) -> None:
        """Take the next frames, `[T, V]`, blank last."""

    @property
    def partial(self) -> Partial:
        """The text so far."""

    def finish(self) -> Hypothesis:
        """What was said, with word times in seconds from the first frame, and confidence; nothing comes after."""
