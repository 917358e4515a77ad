"""A training's trainer and experiment, and that nothing of it stays behind in the process."""

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from nemo.constants import NEMO_ENV_VARNAME_VERSION
from nemo.utils.callbacks import NeMoModelCheckpoint
from nemo.utils.exp_manager import exp_manager
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_ds2_adapters.errors import InputError

REFUSALS = (MisconfigurationException, OmegaConfBaseException, TypeError, ValueError)
# Of the checkpoint callback: NeMo would write the `.nemo` in place, half of it if it is killed.
NO_NEMO_FILE = {"save_best_model": False, "save_nemo_on_train_end": False}


def make_trainer(arguments: Mapping[str, Any]) -> pl.Trainer:
    """Lightning's trainer. Raises InputError: it refuses an argument, such as a device that is not there."""
    try:
        trainer = pl.Trainer(**arguments)
    except (*REFUSALS, RuntimeError) as error:
        raise InputError(f"trainer: {one_line(error)}") from error
    cores = os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:  # each is a process
        raise InputError(f"trainer.devices={arguments['devices']}: there are {cores} processor cores, and no GPU")
    return trainer


@contextmanager
def experiment(trainer: pl.Trainer, cfg: Mapping[str, Any]) -> Iterator[Path]:
    """In this block, the trainer logs and keeps checkpoints as the config's section `exp_manager` says; no `.nemo`.

    NeMo puts the version of the folder, which is yielded, into the environment, for processes that Lightning starts; a
    later training of this process would find it there, and write into the same folder. Raises InputError: NeMo refuses
    a key, or the folder cannot be made.
    """
    params = {**(cfg.get("checkpoint_callback_params") or {}), **NO_NEMO_FILE}
    before = os.environ.get(NEMO_ENV_VARNAME_VERSION)
    try:
        try:
            folder = Path(exp_manager(trainer, OmegaConf.create({**cfg, "checkpoint_callback_params": params})))
        except REFUSALS as error:
            raise InputError(f"exp_manager: {one_line(error)}") from error
        except OSError as error:
            raise InputError(f"exp_manager.exp_dir={cfg.get('exp_dir')}: cannot be written ({error})") from error
        yield folder
    finally:
        os.environ.pop(NEMO_ENV_VARNAME_VERSION, None)
        if before is not None:
            os.environ[NEMO_ENV_VARNAME_VERSION] = before


def fit(trainer: pl.Trainer, model: pl.LightningModule) -> None:
    """Train, from a checkpoint if the experiment has found one. Raises InputError: the trainer does not go with the
    data."""
    try:
        trainer.fit(model)
    except MisconfigurationException as error:
        raise InputError(f"trainer: {one_line(error)}") from error


def nemo_path(trainer: pl.Trainer, folder: Path, name: str) -> Path:
    """Where the `.nemo` of an experiment goes."""
    callback = trainer.checkpoint_callback
    if isinstance(callback, NeMoModelCheckpoint):
        return Path(callback.dirpath) / f"{callback.prefix}{callback.postfix}"
    return folder / "checkpoints" / f"{name}.nemo"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """In this block, random numbers depend on the seed alone; those after it are what they would be without it."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def one_line(error: Exception) -> str:
    """The message of somebody else's exception."""
    return " ".join(str(error).split())
