"""What holds an adapter near the base where there is little data."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nemo_ds2_adapters.layers import length_mask


def divergence(base: Tensor, adapted: Tensor, lengths: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the adapted output from the base's (Yu et al. 2013, equation 5).

    Args:
        base: log probabilities `[B, T, V]`.
        adapted: log probabilities `[B, T, V]`.
        lengths: `[B]`, real frames.

    Returns:
        sum over an utterance's real frames, mean over the batch: the scale of NeMo's CTC loss.
    """
    frames = (base.exp() * (base - adapted)).sum(dim=-1)
    return frames.masked_fill(~length_mask(lengths, frames.shape[1]), 0.0).sum(dim=1).mean()


def distance_to(start: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """Squared Euclidean distance of weights from where they started."""
    return torch.stack([(p - s).square().sum() for p, s in zip(parameters, start)]).sum()
