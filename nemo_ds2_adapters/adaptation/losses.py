"""What holds an adapter near the base where there is little data: beside the CTC loss, and in the weights kept."""

from collections.abc import Callable, Sequence

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


class Regulariser:
    """What it costs an adapter to be far from the base.

    Args:
        parameters: as they start.
        kl_weight: of `divergence`.
        l2_weight: of `distance_to` the start.
    """

    def __init__(self, parameters: Sequence[Tensor], kl_weight: float, l2_weight: float) -> None:
        self.kl_weight, self.l2_weight = kl_weight, l2_weight
        self._parameters = parameters
        self._start = [p.detach().clone() for p in parameters] if l2_weight else []

    def added_to(self, loss: Tensor, log_probs: Tensor, lengths: Tensor, base: Callable[[], Tensor]) -> Tensor:
        """A CTC loss and the costs.

        Args:
            loss: mean over the batch.
            log_probs: `[B, T, V]`, of the adapted model.
            lengths: `[B]`, real frames.
            base: gives the base's log probabilities, `[B, T', V]` with all real frames; is asked if they are needed.
        """
        if self.kl_weight:
            wanted = base()
            loss = loss + self.kl_weight * divergence(wanted, log_probs[:, : wanted.shape[1]], lengths)
        if self.l2_weight:
            start = [s.to(p.device) for s, p in zip(self._start, self._parameters)]
            loss = loss + self.l2_weight * distance_to(start, self._parameters)
        return loss


class EpochMean:
    """The mean of weights over epochs.

    (Polyak & Juditsky 1992; over epochs as in Izmailov et al. 2018, without their learning rates.)
    """

    def __init__(self) -> None:
        self.epochs = 0
        self.weights: list[Tensor] = []  # none before the first epoch

    @torch.no_grad()
    def add(self, parameters: Sequence[Tensor]) -> None:
        """Take in the weights as they are at the end of an epoch."""
        self.epochs += 1
        mean = self.weights or [p.detach().clone() for p in parameters]
        self.weights = [torch.lerp(m.to(p.device), p.detach(), 1 / self.epochs) for m, p in zip(mean, parameters)]
