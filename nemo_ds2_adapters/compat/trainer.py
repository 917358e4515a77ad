"""Train a person's adapter by the original's calls."""

import logging
from pathlib import Path
from typing import Any

from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.adaptation.adapt import adapt
from nemo_ds2_adapters.adaptation.report import Adaptation
from nemo_ds2_adapters.adapters.adapter import is_additive
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.adapters.enabling import enabled_names
from nemo_ds2_adapters.compat.base_file import make_folder
from nemo_ds2_adapters.compat.manager import AdapterManager, adapter_file_in
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.reading import FilePath
from nemo_ds2_adapters.formats.scratch import ScratchFolder


class AdapterTrainer:
    """Trains adapters on one person's recordings, each saved as `<adapter_save_dir>/<adapter_name>_adapter.pt`.

    Args:
        train_manifest: NeMo manifest, in the place of the original's data set.
        validation_manifest: the best epoch on these is kept, or what it is compared with if none is better.
        num_workers: processes that read recordings.
        adapter_save_dir: directory, made if it is not there.
        init_lr: learning rate at the first step. This and the next three make the schedule tri-stage; what is not
            given is as in `TriStageSchedule`, all None is the training script's schedule.
        peak_lr: learning rate after warm-up.
        final_lr: learning rate at the last step.
        warmup_steps: optimiser steps of warm-up.
        settings: of `adapt`, which say also what a new adapter is like: `hidden_dims`, `layers`, `adapter_type`, ...
    """

    def __init__(
        self,
        train_manifest: FilePath,
        validation_manifest: FilePath | None = None,
        num_workers: int = 0,
        adapter_save_dir: FilePath = "./adapters",
        *,
        init_lr: float | None = None,
        peak_lr: float | None = None,
        final_lr: float | None = None,
        warmup_steps: int | None = None,
        **settings: Any,
    ) -> None:
        rates = {"init_lr": init_lr, "peak_lr": peak_lr, "final_lr": final_lr, "warmup_steps": warmup_steps}
        given = {name: value for name, value in rates.items() if value is not None}
        if given and "sched" in settings:
            raise InputError(f"{', '.join(given)} and sched: give one of the two, both are a schedule")
        if given:
            settings["sched"] = {"name": "TriStage", **given}
        self.train_manifest, self.validation_manifest = train_manifest, validation_manifest
        self.adapter_save_dir = adapter_save_dir
        self.result: Adaptation | None = None  # of the last training
        self._settings = {"num_workers": num_workers, **settings}

    def train(
        self,
        model: ASRModel,
        batch_size: int | None = None,
        num_epochs: int | None = None,
        adapter_name: str = "default",
    ) -> ASRModel:
        """Train an adapter, save it, and leave it enabled.

        An adapter of this name is trained on. A new one starts from a copy of the one that is enabled, if there is
        one; otherwise it is built as the settings say. One that takes the place of the base's output is kept whatever
        comes of it, as the original does; unless validation data show that the base is better, then there is none.

        Args:
            model: its base stays as it is.
            batch_size: utterances, None for the training script's.
            num_epochs: passes over the recordings at most, None for the training script's.
            adapter_name: of the adapter and its file.

        Returns:
            the model.

        Raises:
            InputError: a setting, the name or the data are wrong, or several adapters are enabled.
            AdapterFileError: the file cannot be written.
        """
        make_folder(adapter_file_in(self.adapter_save_dir, adapter_name).parent)
        settings = {**_start(model, adapter_name), **self._settings}
        if settings.get("mode") == "replace":
            settings.setdefault("folds", 0)  # as the original, which saves what it has trained
        for name, value in (("batch_size", batch_size), ("max_epochs", num_epochs)):
            if value is not None:
                settings[name] = value
        with ScratchFolder("training") as folder:
            settings.setdefault("exp_dir", str(folder))
            self.result = adapt(model, adapter_name, self.train_manifest, self.validation_manifest, **settings)
            _stop_logging_into(folder)
        if self.result.is_kept:
            AdapterManager.save_adapter(model, self.adapter_save_dir, adapter_name)
        return model


def _stop_logging_into(folder: Path) -> None:
    """Take the log files that NeMo's experiment manager has opened in a folder from the process's loggers.

    They are opened again at the next message if anybody (Hydra does) closes all log files meanwhile.
    """
    for logger in list(logging.root.manager.loggerDict.values()):
        for handler in list(getattr(logger, "handlers", ())):
            if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).is_relative_to(folder):
                logger.removeHandler(handler)  # type: ignore[union-attr]  # what has handlers is a logger
                handler.close()


def _start(model: ASRModel, name: str) -> dict[str, Any]:
    names = list_adapters(model)
    if name in names:
        return {"continue_existing": True}
    enabled = enabled_names(model) if names else []
    if len(enabled) > 1:
        raise InputError(f"{', '.join(enabled)} are enabled: enable the one that {name} is to start from, or none")
    if not enabled:
        return {}
    kept = {} if is_additive(attached_adapter(model, enabled[0])) else {"folds": 0}  # as the original
    return {"init_from": enabled[0], **kept}
