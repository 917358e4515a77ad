"""Mel spectrograms that need no future: for models that recognise speech while it is spoken."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor
from torch import Tensor

from nemo_ds2_adapters.layers import length_mask


class StreamingMelPreprocessor(AudioToMelSpectrogramPreprocessor):
    """NeMo's mel spectrogram, normalised by statistics of the training set in the place of those of an utterance.

    So a frame depends on its own window alone, and is the same in training, in a whole utterance and in a stream.

    Args:
        feature_mean: of each mel band, log energies.
        feature_std: standard deviation of each.
        normalize: there is no other normalisation: None, or NeMo's word for it, `None` as text.
        options: of `AudioToMelSpectrogramPreprocessor`.

    Raises:
        ValueError: statistics of another number of bands, or not positive; `normalize`, `exact_pad` or spliced frames.
    """

    def __init__(
        self, feature_mean: Sequence[float], feature_std: Sequence[float], normalize: str | None = None, **options: Any
    ) -> None:
        bands = options.get("features", 64)
        if not len(feature_mean) == len(feature_std) == bands or min(feature_std) <= 0:
            raise ValueError(
                f"{len(feature_mean)} values of feature_mean, {len(feature_std)} of feature_std for features={bands}: "
                "expected a mean and a positive deviation of each"
            )
        if normalize not in (None, "None") or options.get("frame_splicing", 1) != 1 or options.get("exact_pad"):
            raise ValueError(
                f"normalize={normalize}, frame_splicing={options.get('frame_splicing', 1)}, exact_pad="
                f"{options.get('exact_pad', False)}: expected null, 1 and false, for frames that stand alone"
            )
        super().__init__(normalize=None, **options)
        self.mean: Tensor
        self.std: Tensor
        for name, values in (("mean", feature_mean), ("std", feature_std)):
            self.register_buffer(name, torch.tensor(list(values), dtype=torch.float32), persistent=False)

    @property
    def context_frames(self) -> int:
        """Frames after the start of a signal that would be others if it had begun earlier."""
        reach = self.featurizer.n_fft // 2 + 1  # samples: half a window, and the one that pre-emphasis looks back at
        return -(-reach // self.featurizer.hop_length)

    def complete_frames(self, samples: int) -> int:
        """Frames of the first so many samples that stay as they are whatever comes after."""
        inside = samples - self.featurizer.n_fft // 2
        return 0 if inside < 0 else inside // self.featurizer.hop_length + 1

    def get_features(self, input_signal: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, T]` samples, `[B]` real ones -> `[B, features, T']`, zero beyond `[B]` real frames."""
        features, lengths = super().get_features(input_signal, length)
        features = (features - self.mean.unsqueeze(1)) / self.std.unsqueeze(1)
        return features.masked_fill(~length_mask(lengths, features.shape[2]).unsqueeze(1), 0.0), lengths


@dataclass
class StreamingMelPreprocessorConfig:
    """Arguments of `StreamingMelPreprocessor` without which there is none; the others are NeMo's."""

    feature_mean: list[float]
    feature_std: list[float]
    _target_: str = "nemo_ds2_adapters.modules.StreamingMelPreprocessor"
