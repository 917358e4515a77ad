"""Which frames of a padded batch are real."""

import torch
from torch import Tensor


def length_mask(lengths: Tensor, max_length: int) -> Tensor:
    """Mark the real frames of a padded batch.

    Args:
        lengths: `[B]`, real frames per utterance.
        max_length: frames of the padded batch, `T`.

    Returns:
        bool `[B, T]`, True where a frame is real.
    """
    frames = torch.arange(max_length, device=lengths.device)
    return frames.unsqueeze(0) < lengths.unsqueeze(1)


def conv_output_length(length: Tensor, kernel_size: int, stride: int, padding: int) -> Tensor:
    """Frames after a convolution over `length` frames: `(L + 2*padding - kernel) // stride + 1`."""
    return torch.div(length + (2 * padding - kernel_size), stride, rounding_mode="floor") + 1


def reverse_frames(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the real frames of each utterance and leave its padding where it is.

    Args:
        x: `[B, T, D]`.
        lengths: `[B]`, real frames per utterance.

    Returns:
        `[B, T, D]`.
    """
    frames = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
    source = torch.where(frames < lengths.unsqueeze(1), lengths.unsqueeze(1) - 1 - frames, frames)
    return x.gather(1, source.unsqueeze(-1).expand_as(x))
