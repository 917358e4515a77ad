"""The convolutions in front of the recurrent layers."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemo_ds2_adapters.layers.activation import build_activation
from nemo_ds2_adapters.layers.masking import conv_output_length, length_mask
from nemo_ds2_adapters.layers.norm import MaskedBatchNorm
from nemo_ds2_adapters.layers.state import PendingFrames

# (frequency bins, frames) of the three 2-D convolutions, Amodei et al. 2015, table 5
KERNEL_SIZES = ((41, 11), (21, 11), (21, 11))
STRIDES = ((2, 2), (2, 1), (2, 1))  # the first one's along time is `ConvFrontEnd`'s time_stride


class ConvBlock(nn.Module):
    """2-D convolution over frequency and time, batch norm, activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        stride: tuple[int, int],
        activation: str,
        bias: bool,
    ) -> None:
        super().__init__()
        padding = (kernel_size[0] // 2, kernel_size[1] // 2)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        self.norm = MaskedBatchNorm(out_channels)
        self.activation = build_activation(activation)

    def output_bins(self, bins: int) -> int:
        """Frequency bins after the convolution over `bins` bins."""
        return (bins + 2 * self.conv.padding[0] - self.conv.kernel_size[0]) // self.conv.stride[0] + 1  # type: ignore[operator]

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Frames after the convolution, `[B]`."""
        return conv_output_length(lengths, self.conv.kernel_size[1], self.conv.stride[1], self.conv.padding[1])  # type: ignore[arg-type]

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, C, D, T]`, zero beyond `lengths` frames -> `[B, C', D', T']`, zero beyond the new lengths."""
        lengths = self.output_lengths(lengths)
        return self._normed(self.conv(x), lengths), lengths

    def step(
        self, x: Tensor, lengths: Tensor, pending: PendingFrames, is_last: Tensor | None
    ) -> tuple[Tensor, Tensor, PendingFrames]:
        """`forward` of streams: `[B, T, C * D]`, new frames -> `[B, T', C' * D']`, those that are complete by now."""
        conv = self.conv
        window, lengths, pending = pending.slide(x, lengths, conv.stride[1], conv.padding[1], is_last)  # type: ignore[arg-type]
        window = window.unflatten(2, (conv.in_channels, -1)).permute(0, 2, 3, 1)
        x = F.conv2d(window, conv.weight, conv.bias, conv.stride, (conv.padding[0], 0))  # type: ignore[arg-type]
        return _flat(self._normed(x, lengths)), lengths, pending

    def _normed(self, x: Tensor, lengths: Tensor) -> Tensor:
        mask = length_mask(lengths, x.shape[-1])[:, None, None, :]
        return self.activation(self.norm(x, mask)).masked_fill(~mask, 0.0)


class ConvFrontEnd(nn.Module):
    """One to three 2-D convolutions; the first one lowers the frame rate, each halves the frequency axis.

    Args:
        feat_in: frequency bins of the input.
        channels: output channels per convolution, 1 to 3 of them.
        activation: a name of `ACTIVATIONS`.
        bias: whether the convolutions have a bias before their norm.
        time_stride: input frames per output frame (Amodei et al. 2015, section 3.4).

    Raises:
        ValueError: not 1 to 3 channel counts, or one below 1, or `feat_in` or `time_stride` below 1.
    """

    def __init__(
        self,
        feat_in: int,
        channels: Sequence[int] = (32, 32),
        activation: str = "clipped_relu",
        bias: bool = True,
        time_stride: int = 2,
    ) -> None:
        super().__init__()
        if not 1 <= len(channels) <= len(KERNEL_SIZES) or min(channels) < 1:
            raise ValueError(f"conv_channels={list(channels)}: expected 1 to 3 channel counts of at least 1")
        if feat_in < 1:
            raise ValueError(f"feat_in={feat_in}: expected at least 1 frequency bin")
        if time_stride < 1:
            raise ValueError(f"conv_time_stride={time_stride}: expected at least 1 frame")
        self.feat_in = feat_in
        self.blocks = nn.ModuleList()
        in_channels, bins = 1, feat_in
        strides = ((STRIDES[0][0], time_stride), *STRIDES[1:])
        for out_channels, kernel_size, stride in zip(channels, KERNEL_SIZES, strides):
            block = ConvBlock(in_channels, out_channels, kernel_size, stride, activation, bias)
            self.blocks.append(block)
            in_channels, bins = out_channels, block.output_bins(bins)
        self.feat_out = in_channels * bins  # values per output frame
        self.time_stride = time_stride  # input frames per output frame

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Output frames per utterance, `[B]`."""
        for block in self.blocks:
            lengths = block.output_lengths(lengths)  # type: ignore[operator]
        return lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run the convolutions.

        Args:
            features: `[B, D, T]`; what stands beyond an utterance's length is ignored.
            lengths: `[B]`, real frames per utterance.

        Returns:
            `[B, T', feat_out]`, zero beyond the real frames, and `[B]` real output frames.
        """
        # filled, not multiplied by 0: padding may hold NaN or inf
        x = features.masked_fill(~length_mask(lengths, features.shape[-1])[:, None, :], 0.0).unsqueeze(1)
        for block in self.blocks:
            x, lengths = block(x, lengths)
        return _flat(x), lengths

    def start(self, rows: int) -> list[PendingFrames]:
        """The state of so many streams before their first frame."""
        like, bins, states = next(self.parameters()), self.feat_in, []
        for block in self.blocks:
            conv: Any = block.conv
            width = conv.in_channels * bins
            states.append(PendingFrames.at_start(rows, width, conv.kernel_size[1], conv.padding[1], like))
            bins = block.output_bins(bins)  # type: ignore[operator]
        return states

    def step(
        self, features: Tensor, lengths: Tensor, states: Sequence[PendingFrames], is_last: Tensor | None
    ) -> tuple[Tensor, Tensor, list[PendingFrames]]:
        """`forward` of streams, chunk by chunk.

        Args:
            features: `[B, D, T]`, new frames.
            lengths: `[B]`, real ones of each row, 0 for none.
            states: what `start` or the last step gave.
            is_last: bool `[B]`, rows that end with these; None: none does.

        Returns:
            `[B, T', feat_out]`, the frames that are complete by now, zero beyond `[B]` real ones, and the new states.
        """
        x = features.masked_fill(~length_mask(lengths, features.shape[-1])[:, None, :], 0.0).transpose(1, 2)
        after = []
        for block, pending in zip(self.blocks, states, strict=True):
            x, lengths, pending = block.step(x, lengths, pending, is_last)  # type: ignore[operator]
            after.append(pending)
        return x, lengths, after


def _flat(x: Tensor) -> Tensor:
    """`[B, C, D, T]` -> `[B, T, C * D]`."""
    return torch.flatten(x.permute(0, 3, 1, 2), 2)
