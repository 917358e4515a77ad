"""NeMo's experiment manager for one training of several in a process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
from nemo.constants import NEMO_ENV_VARNAME_VERSION
from nemo.utils.exp_manager import exp_manager
from omegaconf import DictConfig


@contextmanager
def experiment(trainer: pl.Trainer, cfg: DictConfig) -> Iterator[Path]:
    """In this block, the trainer logs and keeps checkpoints as the config's section `exp_manager` says.

    NeMo puts the version of the folder into the environment, for processes that Lightning starts; a later training of
    this process would find it there, and write into the same folder.

    Yields:
        the folder of the experiment.
    """
    before = os.environ.get(NEMO_ENV_VARNAME_VERSION)
    try:
        yield exp_manager(trainer, cfg)
    finally:
        os.environ.pop(NEMO_ENV_VARNAME_VERSION, None)
        if before is not None:
            os.environ[NEMO_ENV_VARNAME_VERSION] = before
