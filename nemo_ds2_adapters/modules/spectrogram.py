"""The spectrogram that DeepSpeech2 models were trained on before mel bands became usual."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from nemo.core.classes.common import typecheck
from nemo.core.classes.exportable import Exportable
from nemo.core.classes.module import NeuralModule
from nemo.core.neural_types import AudioSignal, LengthsType, NeuralType, SpectrogramType
from torch import Tensor

from nemo_ds2_adapters.layers import length_mask

WINDOWS: dict[str, Callable[..., Tensor]] = {
    "bartlett": torch.bartlett_window,
    "blackman": torch.blackman_window,
    "hamming": torch.hamming_window,
    "hann": torch.hann_window,
}
PAD_MODES = ("reflect", "constant")
MIN_STD = 1e-5  # of a silent utterance, which has none


class LogSpectrogramPreprocessor(NeuralModule, Exportable):
    """`log(1 + |STFT|)`, normalised per utterance, as `librosa.stft` gives it.

    An utterance's features do not depend on what else is in the batch. Gradients flow back to the signal.

    Args:
        sample_rate: of the signal, Hz.
        window_size: seconds; the Fourier transform has `int(sample_rate * window_size)` points.
        window_stride: seconds from frame to frame.
        window: `hamming`, `hann`, `blackman` or `bartlett`, periodic as in librosa.
        center: frames are centred on multiples of the stride, the signal being padded by half a window on both
            sides; without, the first frame begins where the signal does.
        pad_mode: what centred frames see beyond the signal: `reflect`, the signal mirrored at its first and last
            sample (librosa's default before 0.9), or `constant`, zeros (librosa's default since).
        normalize: subtract the mean of an utterance's values and divide by their standard deviation.
        std_correction: 1 divides the squared deviations by their number less one, as torch does; 0 by their number,
            as numpy does.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        window_size: float = 0.02,
        window_stride: float = 0.01,
        window: str = "hamming",
        center: bool = True,
        pad_mode: str = "reflect",
        normalize: bool = True,
        std_correction: int = 1,
    ) -> None:
        super().__init__()
        self._sample_rate = sample_rate  # NeMo reads it
        self.n_fft = int(sample_rate * window_size)
        self.hop_length = int(sample_rate * window_stride)
        if self.n_fft < 2 or self.hop_length < 1:
            raise ValueError(
                f"sample_rate={sample_rate}, window_size={window_size}, window_stride={window_stride}: expected "
                "windows of at least 2 samples and strides of at least 1"
            )
        if window not in WINDOWS:
            raise ValueError(f"window={window!r} is unknown, expected one of {', '.join(WINDOWS)}")
        if pad_mode not in PAD_MODES:
            raise ValueError(f"pad_mode={pad_mode!r}: expected one of {', '.join(PAD_MODES)}")
        if std_correction not in (0, 1):
            raise ValueError(f"std_correction={std_correction}: expected 0 or 1")
        self.padding = self.n_fft // 2 if center else 0  # samples on each side
        self.reflect = pad_mode == "reflect"
        self.normalize = normalize
        self.std_correction = std_correction
        self.window: Tensor
        self.register_buffer("window", WINDOWS[window](self.n_fft, periodic=True), persistent=False)

    @property
    def feat_out(self) -> int:
        """Frequency bins per frame."""
        return self.n_fft // 2 + 1

    @property
    def input_types(self) -> dict[str, NeuralType]:
        return {
            "input_signal": NeuralType(("B", "T"), AudioSignal(freq=self._sample_rate)),
            "length": NeuralType(tuple("B"), LengthsType()),
        }

    @property
    def output_types(self) -> dict[str, NeuralType]:
        return {
            "processed_signal": NeuralType(("B", "D", "T"), SpectrogramType()),
            "processed_length": NeuralType(tuple("B"), LengthsType()),
        }

    @typecheck()
    def forward(self, input_signal: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features.

        Args:
            input_signal: `[B, samples]`; what stands beyond an utterance's length is ignored.
            length: `[B]`, samples of each utterance.

        Returns:
            `[B, feat_out, T]`, zero beyond the real frames, and `[B]` real frames: 0 for an utterance that is
            shorter than a window and not padded.
        """
        with torch.autocast(input_signal.device.type, enabled=False):
            signal = self._padded(input_signal.float(), length)
            spectrum = torch.stft(
                signal, self.n_fft, self.hop_length, window=self.window.float(), center=False, return_complex=True
            )
            features = spectrum.abs().log1p()
        frames = torch.div(length + 2 * self.padding - self.n_fft, self.hop_length, rounding_mode="floor") + 1
        frames = frames.clamp(min=0).masked_fill(length < 1, 0)
        mask = length_mask(frames, features.shape[-1]).unsqueeze(1)
        if self.normalize:
            features = self._normalized(features, mask)
        return features.masked_fill(~mask, 0.0).to(self.window.dtype), frames

    def _padded(self, signal: Tensor, length: Tensor) -> Tensor:
        """The signal with `padding` samples on both sides of each utterance, at least one window long."""
        size = max(signal.shape[1] + 2 * self.padding, self.n_fft)
        last = (length - 1).clamp(min=0).unsqueeze(1)
        position = torch.arange(size, device=signal.device).unsqueeze(0) - self.padding
        source = position.expand(len(signal), -1)
        if self.reflect:
            source = source.remainder((2 * last).clamp(min=1))  # there and back again
            source = torch.where(source > last, 2 * last - source, source)
            known = position <= last + self.padding
        else:
            known = (position >= 0) & (position <= last)
        known = known & (length > 0).unsqueeze(1)
        return signal.gather(1, source.clamp(0, signal.shape[1] - 1)).masked_fill(~known, 0.0)

    def _normalized(self, features: Tensor, mask: Tensor) -> Tensor:
        count = mask.sum((1, 2), keepdim=True) * features.shape[1]
        mean = features.masked_fill(~mask, 0.0).sum((1, 2), keepdim=True) / count.clamp(min=1)
        deviation = features - mean
        squares = deviation.square().masked_fill(~mask, 0.0).sum((1, 2), keepdim=True)
        variance = squares / (count - self.std_correction).clamp(min=1)
        return deviation / variance.clamp(min=MIN_STD**2).sqrt()

    def input_example(self, max_batch: int = 2, max_dim: int = 16000) -> tuple[Tensor, Tensor]:
        """Signals `[max_batch, max_dim]` and unequal lengths, for export."""
        lengths = torch.linspace(max_dim // 2, max_dim, max_batch, device=self.window.device).round().long()
        return torch.randn(max_batch, max_dim, device=self.window.device), lengths


@dataclass
class LogSpectrogramPreprocessorConfig:
    """Arguments of `LogSpectrogramPreprocessor`, see there."""

    sample_rate: int = 16000
    window_size: float = 0.02
    window_stride: float = 0.01
    window: str = "hamming"
    center: bool = True
    pad_mode: str = "reflect"
    normalize: bool = True
    std_correction: int = 1
    _target_: str = "nemo_ds2_adapters.modules.LogSpectrogramPreprocessor"
