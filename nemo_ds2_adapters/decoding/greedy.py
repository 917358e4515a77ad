"""The most probable unit of each frame, while somebody speaks."""

import numpy as np
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis

from nemo_ds2_adapters.decoding.decoder import Decoder
from nemo_ds2_adapters.decoding.incremental import Partial


class GreedyDecoder:
    """Greedy decoding of one stretch of speech; the final hypothesis is that of the whole, by the same decoder.

    Complete words are stable, the one that is being spoken is not: its letters stay, but others follow.

    Args:
        decoder: of the model, greedy; it decides what hypotheses contain.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._log_probs = [np.zeros((0, decoder.blank + 1), np.float32)]
        self._tokens: list[int] = []
        self._last = decoder.blank  # best unit of the last frame

    def accept(self, log_probs: np.ndarray) -> None:
        """Take the next frames, `[T, V]`, blank last."""
        self._log_probs.append(log_probs)
        for unit in log_probs.argmax(axis=-1).tolist():
            if unit not in (self._last, self._decoder.blank):
                self._tokens.append(unit)
            self._last = unit

    @property
    def partial(self) -> Partial:
        """The text so far."""
        text = self._decoder.text(self._tokens)
        words_end = text.rfind(" ") + 1
        return Partial(text[:words_end], text[words_end:])

    def finish(self) -> Hypothesis:
        """What was said, with what the decoder computes beside."""
        return self._decoder([np.concatenate(self._log_probs)])[0]
