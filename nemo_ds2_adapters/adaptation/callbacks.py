"""Checkpoints of an adapter's training: what is trained, not the base again in every epoch."""

import time
from typing import Any

import lightning.pytorch as pl

from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.errors import InputError

FINGERPRINT = "base_fingerprint"


class TrainedWeightsOnly(pl.Callback):
    """Leaves frozen weights out of checkpoints; resuming takes them from the base, which must be the same one."""

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Drop what the `.nemo` that training starts from holds anyway."""
        frozen = {name for name, parameter in pl_module.named_parameters() if not parameter.requires_grad}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if name not in frozen}
        checkpoint[FINGERPRINT] = fingerprint(pl_module)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to resume on another base.

        Raises:
            InputError: the checkpoint was written by a training on another base.
        """
        if checkpoint.get(FINGERPRINT) != fingerprint(pl_module):
            raise InputError(
                "the checkpoint to resume from was made on another base: set exp_manager.resume_if_exists=false"
            )


class StopAfter(pl.Callback):
    """Ends a training before its learning-rate schedule does.

    Args:
        epochs: to train for.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if this was the last one."""
        if trainer.current_epoch + 1 >= self._epochs:
            trainer.should_stop = True


class History(pl.Callback):
    """Mean training loss and validation WER of every epoch, and the seconds from here to its end."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.epochs: list[dict[str, float]] = []
        self._losses: list[Any] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        """Remember a batch's loss, without waiting for the device."""
        self._losses.append(outputs["loss"].detach())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sum up the epoch; validation, if there is any, has run before."""
        loss = float(sum(self._losses) / max(len(self._losses), 1))
        epoch = {"train_loss": loss, "seconds": time.monotonic() - self._started}
        if "val_wer" in trainer.callback_metrics:
            epoch["val_wer"] = float(trainer.callback_metrics["val_wer"])
        self.epochs.append(epoch)
        self._losses = []
