"""Whether a training runs on prefix activations, and running it on them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins import MixedPrecision
from nemo.collections.asr.data.audio_to_text import _AudioTextDataset
from nemo.collections.asr.models import ASRModel
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.activations.dataset import PrefixDataset, prefix_loader
from nemo_ds2_adapters.activations.point import resume_point, why_not_exact
from nemo_ds2_adapters.errors import InputError

MODES = ("auto", "off", "required")
PRECISIONS = {None: None, "16": torch.float16, "bf16": torch.bfloat16, "32": torch.float32}
LOADERS = ("_train_dl", "_validation_dl")


def open_cache(cfg: DictConfig) -> PrefixCache | None:
    """The cache that the config's section `model.adapter` asks for, None for `cache: off`.

    Raises:
        InputError: an unknown mode or precision, or a folder that cannot be made.
    """
    mode = "off" if cfg.cache is False else str(cfg.cache)  # YAML takes a bare `off` for false
    if mode not in MODES:
        raise InputError(f"model.adapter.cache={cfg.cache}: expected one of {', '.join(MODES)}")
    if _precision_name(cfg) not in PRECISIONS:
        known = ", ".join(str(name) for name in PRECISIONS if name)
        raise InputError(f"model.adapter.cache_precision={cfg.cache_precision}: expected null or one of {known}")
    return None if mode == "off" else PrefixCache(cfg.cache_dir, cfg.cache_memory)


@contextmanager
def prefix_cached(trainer: pl.Trainer, model: ASRModel, cfg: DictConfig) -> Iterator[PrefixDataset | None]:
    """In this block, training and validation run on prefix activations, if that is asked for and exact.

    Says in one line whether, and if not, why not.

    Args:
        trainer: decides device and precision.
        model: with its data set up, everything frozen that is to be frozen, its adapter enabled.
        cfg: the config's section `model.adapter`.

    Yields:
        the training data's activations; None if the block runs on recordings.

    Raises:
        InputError: a key is wrong, or `cache: required` and it is not exact.
    """
    cache = open_cache(cfg)
    reason = "model.adapter.cache=off" if cache is None else why_not_exact(model) or _unfit_data(model)
    if reason and cfg.cache == "required":
        raise InputError(f"model.adapter.cache=required, but {reason}")
    if reason or cache is None:
        print(f"frozen part: computed in every epoch ({reason})")
        yield None
        return
    model.to(trainer.strategy.root_device)
    point, started = resume_point(model), time.monotonic()
    loaders = {name: getattr(model, name) for name in LOADERS}
    computed, datasets = 0, {}
    for loader in loaders.values():
        for old in _as_list(loader):
            dtype = PRECISIONS[_precision_name(cfg)]
            datasets[old] = PrefixDataset(old.dataset, model, point, cache, dtype)
            computed += datasets[old].compute(_autocast(trainer), trainer.progress_bar_callback is not None)
    seconds = time.monotonic() - started
    stored = sum(len(dataset) for dataset in datasets.values()) - computed
    print(f"frozen part: computed once, {computed} utterances in {seconds:.1f} s, {stored} were there from before")
    try:
        for name, loader in loaders.items():
            new = [prefix_loader(old, datasets[old]) for old in _as_list(loader)]
            setattr(model, name, new if isinstance(loader, list) else next(iter(new), None))
        with model.encoder.resuming(point):
            yield datasets[loaders["_train_dl"]]
    finally:
        for name, loader in loaders.items():
            setattr(model, name, loader)


def _unfit_data(model: ASRModel) -> str | None:
    for name in LOADERS:
        for loader in _as_list(getattr(model, name)):
            dataset = getattr(loader, "dataset", None)
            if not isinstance(dataset, _AudioTextDataset):
                return f"data of type {type(dataset).__name__} cannot be looked up by utterance"
            if getattr(dataset.featurizer.augmentor, "_pipeline", None):
                return "the data are augmented"
    return None


def _autocast(trainer: pl.Trainer) -> torch.dtype | None:
    plugin = trainer.precision_plugin
    if not isinstance(plugin, MixedPrecision):
        return None
    return torch.bfloat16 if plugin.precision == "bf16-mixed" else torch.float16


def _precision_name(cfg: DictConfig) -> str | None:
    return None if cfg.cache_precision is None else str(cfg.cache_precision)


def _as_list(loader: DataLoader | list[DataLoader] | None) -> list[DataLoader]:
    return list(loader) if isinstance(loader, list) else [loader] if loader is not None else []
