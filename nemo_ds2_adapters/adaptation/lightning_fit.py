"""Lightning's part in training an adapter: trainer, experiment, checkpoints, and what every epoch reached."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins import DoublePrecision, MixedPrecision, Precision
from nemo.collections.asr.models import ASRModel
from torch import Tensor, nn

from nemo_ds2_adapters.adaptation.fit_settings import MONITORS
from nemo_ds2_adapters.adaptation.losses import EpochMean
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.base_training import experiment
from nemo_ds2_adapters.errors import InputError

FINGERPRINT = "base_fingerprint"


def one_device_trainer(arguments: Mapping[str, Any], mixed: bool = False) -> pl.Trainer:
    """The trainer of whoever only wants its device and its precision.

    Args:
        arguments: accelerator, devices and precision; others are only checked.
        mixed: whether mixed precision may be asked for.

    Raises:
        InputError: the trainer refuses an argument, there are several devices, or the precision is another one.
    """
    all_there_are = str(arguments.get("devices", "auto")) in ("auto", "-1")
    unused = {"logger": False, "enable_checkpointing": False}
    trainer = experiment.make_trainer({**arguments, **unused, **({"devices": 1} if all_there_are else {})})
    if trainer.num_devices > 1:
        raise InputError(f"trainer.devices={arguments['devices']}: this runs on one device, give 1 or [its number]")
    kinds = (Precision, DoublePrecision, MixedPrecision) if mixed else (Precision, DoublePrecision)
    if type(trainer.precision_plugin) not in kinds:
        known = "32-true, 64-true, 16-mixed or bf16-mixed" if mixed else "32-true or 64-true"
        raise InputError(f"trainer.precision={trainer.precision_plugin.precision}: expected {known}")
    return trainer


class TrainedWeightsOnly(pl.Callback):
    """Leaves frozen weights out of checkpoints; resuming takes them from the base, which must be the same one."""

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Drop what the `.nemo` that training starts from holds anyway."""
        checkpoint["state_dict"] = _without_frozen(pl_module, checkpoint["state_dict"])
        checkpoint[FINGERPRINT] = fingerprint(pl_module)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse (InputError) to resume what a training on another base has written."""
        if checkpoint.get(FINGERPRINT) != fingerprint(pl_module):
            raise InputError(
                "the checkpoint to resume from was made on another base: set exp_manager.resume_if_exists=false"
            )


class StopAfter(pl.Callback):
    """Ends a training after so many epochs, before its learning-rate schedule does."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if this was the last one."""
        if trainer.current_epoch + 1 >= self._epochs:
            trainer.should_stop = True


class AverageEpochs(pl.Callback):
    """Validates and keeps the mean of the trained weights over all epochs (`EpochMean`); trains on from the last."""

    def __init__(self) -> None:
        self._mean = EpochMean()
        self._trained: list[Tensor] | None = None  # while the model has the mean

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """At the end of an epoch: the model gets the mean."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._put_mean(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same where there is no validation."""
        self._put_mean(pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on from where training was."""
        if self._trained is not None:
            _copy(self._trained, _trainable(pl_module))
            self._trained = None

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, whose weights are the mean."""
        return {"epochs": self._mean.epochs, "mean": self._mean.weights, "trained": self._trained}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._mean.epochs, self._mean.weights = state_dict["epochs"], state_dict["mean"]
        self._trained = state_dict["trained"]

    def _put_mean(self, model: nn.Module) -> None:
        if self._trained is None:
            parameters = _trainable(model)
            self._trained = [p.detach().clone() for p in parameters]
            self._mean.add(parameters)
            _copy(self._mean.weights, parameters)


@dataclass
class Best:
    """The trained weights of the best validation so far."""

    value: float  # of the monitored metric
    wer: float
    epochs: int  # that they were trained for
    weights: dict[str, Tensor]


class Progress(pl.Callback):
    """What every epoch reached, and the weights of the one with the lowest `monitor`; checkpoints hold both."""

    def __init__(self, monitor: str) -> None:
        self.rows: dict[int, dict[str, float]] = {}  # by number of the epoch: `train_loss`, `seconds`, `val_wer`
        self.best: Best | None = None
        self.validated_step = -1
        self.steps = 0  # of this run, not those before it was resumed
        self._monitor = monitor
        self._losses: list[Tensor] = []
        self._started, self._seconds_before = time.monotonic(), 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        """Remember a batch's loss, without waiting for the device."""
        self._losses.append(outputs["loss"].detach())
        self.steps += 1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare, before a checkpoint is written."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._note_epoch(trainer.current_epoch)
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name in MONITORS}
            self.note(pl_module, metrics, trainer.current_epoch, trainer.global_step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sum up; validation, if there is any, has run before."""
        self._note_epoch(trainer.current_epoch)
        self._losses = []

    def note(self, model: nn.Module, metrics: Mapping[str, float], epoch: int, step: int) -> None:
        """Take down a validation, and the weights if they are the best so far and finite."""
        self.rows[epoch]["val_wer"] = metrics["val_wer"]
        self.validated_step = step
        if self.best is None or metrics[self._monitor] < self.best.value:
            self.best = _finite(model, epoch + 1, metrics[self._monitor], metrics["val_wer"]) or self.best

    def last(self, model: nn.Module) -> Best | None:
        """The weights as they are, None if they are not finite."""
        return _finite(model, len(self.rows))

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        best = vars(self.best) if self.best else None
        seconds = self._seconds()
        return {"rows": self.rows, "best": best, "validated_step": self.validated_step, "seconds": seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.rows, self.validated_step = state_dict["rows"], state_dict["validated_step"]
        self.best = Best(**state_dict["best"]) if state_dict["best"] else None
        self._seconds_before = state_dict["seconds"]

    def _note_epoch(self, epoch: int) -> None:
        row = self.rows.setdefault(epoch, {})
        if self._losses:
            row.update(train_loss=float(sum(self._losses) / len(self._losses)), seconds=self._seconds())

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started


def train(
    trainer: pl.Trainer,
    model: ASRModel,
    progress: Progress,
    average_epochs: bool,
    is_base_frozen: bool,
    limit: int | None = None,
) -> None:
    """Train a model that is ready, from a checkpoint if the trainer's experiment has found one.

    Of a frozen base checkpoints hold the trained weights only; `limit` is in epochs, None: the trainer's own.
    InputError: the trainer's settings do not go with the data.
    """
    callbacks: list[pl.Callback] = [AverageEpochs()] if average_epochs else []
    callbacks.append(progress)
    if is_base_frozen:
        callbacks.append(TrainedWeightsOnly())
        model.strict_loading = False  # of checkpoints: the frozen weights are there already
    if limit is not None:
        callbacks.append(StopAfter(limit))
    trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]  # before those that write checkpoints
    experiment.fit(trainer, model)


def validate(trainer: pl.Trainer, model: ASRModel) -> dict[str, float]:
    """Metrics of the model as it is on its validation data; `val_wer` is a fraction."""
    checkpoint, trainer.ckpt_path = trainer.ckpt_path, None  # which would be loaded
    try:
        (metrics,) = trainer.validate(model, verbose=False)
    finally:
        trainer.ckpt_path = checkpoint
    return {name: metrics[name] for name in MONITORS}


def place(model: ASRModel, trainer: pl.Trainer) -> None:
    """Bring the model to the trainer's device and precision."""
    model.to(trainer.strategy.root_device)
    if isinstance(trainer.precision_plugin, DoublePrecision):
        model.double()


def autocast_type(trainer: pl.Trainer) -> torch.dtype | None:
    """Of mixed precision, None for none."""
    plugin = trainer.precision_plugin
    if not isinstance(plugin, MixedPrecision):
        return None
    return torch.bfloat16 if plugin.precision == "bf16-mixed" else torch.float16


def _finite(model: nn.Module, epochs: int, value: float = math.nan, wer: float = math.nan) -> Best | None:
    weights = _without_frozen(model, model.state_dict())
    if not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
        return None
    return Best(value, wer, epochs, {name: weight.detach().cpu().clone() for name, weight in weights.items()})


def _without_frozen(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in state.items() if name not in frozen}


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


@torch.no_grad()
def _copy(values: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values):
        parameter.copy_(value)
