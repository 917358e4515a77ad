"""A model's features in NumPy: what its preprocessor computes in eval mode, without torch."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nemo_ds2_adapters.errors import InputError

ARRAYS = ("window", "bands", "mean", "deviation")
NUMBERS = np.dtype("<f4")  # of arrays in text


@dataclass(frozen=True, eq=False)
class Features:
    """`[optional pre-emphasis ->] |STFT| ** power [-> mel bands] -> logarithm -> normalisation`.

    Args:
        window: `[n_fft]`, with which each frame is multiplied.
        hop: samples from frame to frame.
        padding: samples on both sides of an utterance.
        reflect: whether these mirror the utterance; else they are zero.
        frames_less: how many of the frames that fit are left out at the end.
        preemphasis: of the sample before, 0 for none.
        power: of the magnitude.
        bands: `[D, n_fft // 2 + 1]`, or None: one band per frequency.
        guard: what is added before the logarithm; 1 is `log1p`. None: there is no logarithm.
        clamps: the guard is the least value instead.
        normalize: over the frames of `feature` (each by itself), of `all`, or '' for not at all.
        mean: `[D]`, taken off each frame, and
        deviation: `[D]`, by which it is divided; None for neither.
        correction: taken off the number of values whose squared deviations are averaged.
        least_variance: of a silent utterance, which has none.
        added_deviation: to the standard deviation.
    """

    window: np.ndarray
    hop: int
    padding: int
    bands: np.ndarray | None = None
    reflect: bool = False
    frames_less: int = 0
    preemphasis: float = 0.0
    power: float = 1.0
    guard: float | None = 1.0
    clamps: bool = False
    normalize: str = ""
    mean: np.ndarray | None = None
    deviation: np.ndarray | None = None
    correction: int = 1
    least_variance: float = 0.0
    added_deviation: float = 0.0

    @property
    def width(self) -> int:
        """Values per frame."""
        return len(self.window) // 2 + 1 if self.bands is None else len(self.bands)

    def __call__(self, signals: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Compute features; an utterance's do not depend on the others.

        Args:
            signals: each `[T]`, float32.

        Returns:
            `[B, D, T']` float32, zero beyond the real frames, and `[B]` real frames.

        Raises:
            InputError: an utterance is too short for a frame.
        """
        found = [self._of(signal) for signal in signals]
        lengths = np.array([features.shape[1] for features in found])
        if not lengths.all():
            raise InputError(f"audio[{int(lengths.argmin())}] is too short: not even one frame of features")
        padded = np.zeros((len(found), found[0].shape[0], lengths.max()), np.float32)
        for row, features in zip(padded, found):
            row[:, : features.shape[1]] = features
        return padded, lengths

    def plain(self) -> dict[str, Any]:
        """Values for JSON."""
        arrays = {key: None if (array := getattr(self, key)) is None else _text(array) for key in ARRAYS}
        return {**asdict(self), **arrays}

    @classmethod
    def of_plain(cls, values: Mapping[str, Any]) -> "Features":
        """The inverse of `plain`."""
        arrays = {key: None if values.get(key) is None else _array(values[key]) for key in ARRAYS}
        return cls(**{**values, **arrays})

    def _of(self, signal: np.ndarray) -> np.ndarray:
        """`[T]` -> `[D, T']`."""
        signal = np.asarray(signal, np.float32)
        if self.preemphasis:
            signal = np.concatenate([signal[:1], signal[1:] - np.float32(self.preemphasis) * signal[:-1]])
        padded = np.pad(signal, self.padding, mode="reflect" if self.reflect else "constant")
        size = len(self.window)
        frames = (len(padded) - size) // self.hop + 1 - self.frames_less
        if frames < 1:
            return np.zeros((self.width, 0), np.float32)
        cut = np.lib.stride_tricks.sliding_window_view(padded, size)[:: self.hop][:frames]
        values = np.abs(np.fft.rfft(cut * self.window)).T ** np.float32(self.power)
        if self.bands is not None:
            values = self.bands @ values
        if self.guard is not None:
            guard = np.float32(self.guard)
            values = np.log(np.maximum(values, guard) if self.clamps else values + guard)
        if self.mean is not None and self.deviation is not None:
            values = (values - self.mean[:, None]) / self.deviation[:, None]
        return self._normalised(values) if self.normalize else values

    def _normalised(self, values: np.ndarray) -> np.ndarray:
        axis = 1 if self.normalize == "feature" else None
        deviation = values - values.mean(axis=axis, keepdims=True)
        count = values.shape[1] if axis else values.size
        variance = np.square(deviation).sum(axis=axis, keepdims=True) / max(count - self.correction, 1)
        return deviation / (np.sqrt(np.maximum(variance, self.least_variance)) + np.float32(self.added_deviation))


def _text(array: np.ndarray) -> dict[str, Any]:
    return {"shape": list(array.shape), "float32": base64.b64encode(array.astype(NUMBERS).tobytes()).decode("ascii")}


def _array(values: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(values["float32"]), NUMBERS).reshape(values["shape"])
