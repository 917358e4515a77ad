"""What holds an adapter near the base where there is little data."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
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
        self._kl_weight, self._l2_weight = kl_weight, l2_weight
        self._parameters_now = [p for p in model.parameters() if p.requires_grad]
        self._start = [p.detach().clone() for p in self._parameters_now]
        self._encoder_input: dict[str, Any] = {}

    def remember(self, encoder: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Forward hook of the encoder: what the base's output is computed from."""
        self._encoder_input = named

    def forward(self, log_probs: Tensor, input_lengths: Tensor, **targets: Tensor) -> Tensor:
        """As NeMo calls a CTC loss: log probabilities `[B, T, V]`, `[B]` real frames, targets and their lengths."""
        loss = self.loss(log_probs=log_probs, input_lengths=input_lengths, **targets)
        if not torch.is_grad_enabled():
            return loss
        if self._kl_weight:
            base = self._base_log_probs(log_probs.device)
            loss = loss + self._kl_weight * divergence(base, log_probs, input_lengths)
        if self._l2_weight:
            start = [s.to(log_probs.device) for s in self._start]
            loss = loss + self._l2_weight * distance_to(start, self._parameters_now)
        return loss

    def _base_log_probs(self, device: torch.device) -> Tensor:
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


class AverageEpochs(pl.Callback):
    """Validates and keeps the mean of the trained weights over all epochs so far; training goes on from the last ones.

    (Polyak & Juditsky 1992; over epochs as in Izmailov et al. 2018, without their learning rates.)
    """

    def __init__(self) -> None:
        self._epochs = 0
        self._mean: list[Tensor] = []
        self._trained: list[Tensor] | None = None  # while the model has the mean

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """At the end of an epoch: the model gets the mean."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._put_mean(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same where there is no validation."""
        self._put_mean(pl_module)

    @torch.no_grad()
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on from where training was."""
        if self._trained is not None:
            for parameter, value in zip(_trainable(pl_module), self._trained):
                parameter.copy_(value)
            self._trained = None

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, whose weights are the mean."""
        return {"epochs": self._epochs, "mean": self._mean, "trained": self._trained}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._epochs, self._mean, self._trained = (state_dict[key] for key in ("epochs", "mean", "trained"))

    @torch.no_grad()
    def _put_mean(self, model: nn.Module) -> None:
        if self._trained is not None:
            return
        parameters = _trainable(model)
        self._trained = [p.detach().clone() for p in parameters]
        self._epochs += 1
        mean = self._mean or self._trained
        self._mean = [torch.lerp(m.to(p.device), p, 1 / self._epochs) for m, p in zip(mean, parameters)]
        for parameter, value in zip(parameters, self._mean):
            parameter.copy_(value)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]
