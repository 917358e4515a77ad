"""The training of one adapter, from a restored model to the file to ship."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl
import torch
from nemo.collections.asr.models import ASRModel
from nemo.utils.exp_manager import exp_manager
from omegaconf import DictConfig

from nemo_ds2_adapters.adapters.blocks import adapter_parts
from nemo_ds2_adapters.training.adapter_setup import attach_adapter, change_vocabulary, plain_name, train_only
from nemo_ds2_adapters.training.checkpoints import History, TrainedWeightsOnly
from nemo_ds2_adapters.training.chosen_adapter import ChosenAdapter
from nemo_ds2_adapters.training.data import DataSection, check_section, loader_config
from nemo_ds2_adapters.training.outcome import Adaptation, best_validation_wer, save, validation_wer
from nemo_ds2_adapters.training.prefix.use import prefix_cached
from nemo_ds2_adapters.training.regularise import AverageEpochs, regularised
from nemo_ds2_adapters.training.sampler import use_seeded_batches


def prepare(
    cfg: DictConfig, model: ASRModel, adapter: ChosenAdapter, train: DataSection, validation: DataSection | None
) -> None:
    """Give the model its data and the adapter, and freeze everything else.

    Args:
        cfg: the config of conf/asr_adapters/asr_adaptation.yaml.
        model: restored, with its trainer.
        adapter: which one.
        train: what to train on.
        validation: what to compare epochs by, None for nothing.

    Raises:
        InputError: data, adapter or a setting do not fit the model.
        AdapterFileError: so does the file that the adapter starts from.
    """
    new_output_layer = change_vocabulary(model, cfg.model.char_labels)
    check_section(train, model)
    model.setup_training_data(loader_config(train, model))
    use_seeded_batches(model, cfg.seed)
    if validation:
        check_section(validation, model)
        model.setup_validation_data(loader_config(validation, model))
    model.setup_optimization(cfg.model.optim)
    with seeded(cfg.seed):
        attach_adapter(model, adapter, cfg.model.adapter)
    train_only(model, adapter, cfg.model.adapter, new_output_layer)


def train_adapter(cfg: DictConfig, trainer: pl.Trainer, model: ASRModel, adapter: ChosenAdapter) -> Adaptation:
    """Train what `prepare` left trainable, keep the best epoch, save the model and the adapter.

    With validation data, an adapter on a frozen base is never worse than what it started from on them: if no epoch
    was better, the start is kept, which for a new adapter is the base.

    Raises:
        InputError: a setting is wrong.
    """
    started = time.monotonic()
    has_validation = model._validation_dl is not None
    settings = cfg.model.adapter
    cfg.exp_manager.create_checkpoint_callback &= has_validation  # nothing to compare epochs by otherwise
    log_dir = exp_manager(trainer, cfg.exp_manager)
    history = History()
    callbacks: list[pl.Callback] = [history, *([AverageEpochs()] if settings.average_epochs else [])]
    is_base_frozen = not settings.unfreeze_base and not cfg.model.char_labels.update_labels
    if is_base_frozen:
        callbacks.append(TrainedWeightsOnly())
        model.strict_loading = False  # of checkpoints: the frozen weights are there already
    trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]  # before the checkpoints
    with prefix_cached(trainer, model, settings), regularised(model, settings.kl_weight, settings.l2_weight):
        wer_before = validation_wer(trainer, model) if has_validation else None
        start = adapter_weights(model, adapter)
        trainer.fit(model)
    wer_after, epochs = best_validation_wer(trainer), best_epoch(history.epochs)
    if is_base_frozen and wer_before is not None and wer_after is not None and not wer_after < wer_before:
        load_adapter_weights(model, adapter, start)
        wer_after, epochs = wer_before, 0
    seconds = time.monotonic() - started
    result = Adaptation(adapter, wer_before, wer_after, epochs, history.epochs, seconds)
    return save(result, trainer, model, log_dir, cfg)


def best_epoch(epochs: list[dict[str, float]]) -> int:
    """Number of the epoch that is kept, 1 for the first: the best one on validation data, else the last."""
    if not all("val_wer" in epoch for epoch in epochs):
        return len(epochs)
    return 1 + min(range(len(epochs)), key=lambda i: epochs[i]["val_wer"], default=-1)


def adapter_weights(model: ASRModel, adapter: ChosenAdapter) -> list[torch.Tensor]:
    """Copies of all weights of an adapter."""
    parts = adapter_parts(model, plain_name(str(adapter.name)))
    return [p.detach().clone() for _, part in parts for p in part.parameters()]


@torch.no_grad()
def load_adapter_weights(model: ASRModel, adapter: ChosenAdapter, weights: list[torch.Tensor]) -> None:
    """Give an adapter the weights that `adapter_weights` copied."""
    parts = adapter_parts(model, plain_name(str(adapter.name)))
    for parameter, value in zip([p for _, part in parts for p in part.parameters()], weights):
        parameter.copy_(value)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """In this block, random numbers depend on the seed alone; those after it are what they would be without it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
