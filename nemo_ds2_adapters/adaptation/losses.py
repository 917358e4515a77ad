"""What holds an adapter near the base where there is little data: beside the CTC loss, and in the weights kept."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from nemo.collections.asr.models import ASRModel
from torch import Tensor, nn

from nemo_ds2_adapters.adapters.enabling import enabled_adapters
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


class RegularisedLoss(nn.Module):
    """A model's own loss, and in training what it costs to be far from the base.

    Args:
        model: frozen but for one adapter.
        kl_weight: of `divergence`; the base's output takes a second forward pass of the model.
        l2_weight: of `distance_to` the weights as they are now.
    """

    def __init__(self, model: ASRModel, kl_weight: float, l2_weight: float) -> None:
        super().__init__()
        self.loss = model.loss
        self._model = (model,)  # in a tuple: not a part of this module
        self._regulariser = Regulariser([p for p in model.parameters() if p.requires_grad], kl_weight, l2_weight)
        self._encoder_input: dict[str, Any] = {}

    def remember(self, encoder: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Forward hook of the encoder: what the base's output is computed from."""
        self._encoder_input = named

    def forward(self, log_probs: Tensor, input_lengths: Tensor, **targets: Tensor) -> Tensor:
        """As NeMo calls a CTC loss: log probabilities `[B, T, V]`, `[B]` real frames, targets and their lengths."""
        loss = self.loss(log_probs=log_probs, input_lengths=input_lengths, **targets)
        if not torch.is_grad_enabled():
            return loss
        return self._regulariser.added_to(loss, log_probs, input_lengths, self._base_log_probs)

    def _base_log_probs(self) -> Tensor:
        (model,), named = self._model, self._encoder_input
        self._encoder_input = {}
        with torch.no_grad(), enabled_adapters(model, None):
            encoded, _ = model.encoder(**named)
            return model.decoder(encoder_output=encoded)


@contextmanager
def regularised(model: ASRModel, kl_weight: float, l2_weight: float) -> Iterator[None]:
    """In this block the model's loss is a `RegularisedLoss`, unless both weights are 0."""
    if not (kl_weight or l2_weight):
        yield
        return
    before = model.loss
    model.loss = RegularisedLoss(model, kl_weight, l2_weight)
    handle = model.encoder.register_forward_pre_hook(model.loss.remember, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
        model.loss = before
