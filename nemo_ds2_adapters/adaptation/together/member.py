"""One adapter in training, with everything that is its own."""

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from nemo.core.optim import get_optimizer, prepare_lr_scheduler
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters.adaptation.together.parts import Parts
from nemo_ds2_adapters.data.sampler import SeededBatchSampler
from nemo_ds2_adapters.errors import InputError

STEP_SEEDS = 1_000_003  # apart, the seeds of a step's random numbers and of the next one's


@dataclass(frozen=True)
class Settings:
    """How an adapter is trained."""

    optim: dict[str, Any]  # NeMo's section `model.optim`, plain values
    batch_size: int = 4  # utterances
    max_epochs: int = 20
    patience: int | None = 4  # epochs without fewer errors out of fold; None: all are run
    gradient_clip_val: float = 1.0  # norm, 0 for none
    randomization_factor: float = 0.2  # of batches of similar length, see NeMo's SemiSortBatchSampler
    seed: int = 0
    kl_weight: float = 0.0  # towards the base's output, see `training.regularise`
    l2_weight: float = 0.0  # towards the start
    average_epochs: bool = False  # keep the mean of the weights over all epochs so far

    @classmethod
    def from_config(cls, cfg: DictConfig) -> "Settings":
        """Those of conf/asr_adapters/asr_adaptation.yaml.

        Raises:
            InputError: the config has something that training together, or cross-validation, does not do.
        """
        data, trainer, adapter = cfg.model.train_ds, cfg.trainer, cfg.model.adapter
        needed = {
            "model.train_ds.use_semi_sorted_batching": (data.use_semi_sorted_batching, True),
            "trainer.accumulate_grad_batches": (trainer.accumulate_grad_batches, 1),
            "trainer.max_steps": (trainer.max_steps, -1),
            "trainer.gradient_clip_algorithm": (trainer.get("gradient_clip_algorithm") or "norm", "norm"),
            "trainer.limit_train_batches": (trainer.get("limit_train_batches") or 1.0, 1.0),
        }
        for key, (value, wanted) in needed.items():
            if value != wanted:
                raise InputError(
                    f"{key}={value} does not go with cross-validation, which needs {wanted}: give "
                    "model.validation_ds.manifest_filepath, or set model.adapter.folds=0"
                )
        if adapter.folds < 2:
            raise InputError(f"model.adapter.folds={adapter.folds}: at least 2 parts must take turns")
        if adapter.patience is not None and (not isinstance(adapter.patience, int) or adapter.patience < 1):
            raise InputError(f"model.adapter.patience={adapter.patience}: expected at least 1 epoch, or null")
        return cls(
            optim=OmegaConf.to_container(cfg.model.optim, resolve=True),  # type: ignore[arg-type]
            batch_size=data.batch_size,
            max_epochs=trainer.max_epochs,
            patience=adapter.patience,
            gradient_clip_val=trainer.gradient_clip_val or 0.0,
            randomization_factor=data.randomization_factor,
            seed=cfg.seed,
            kl_weight=adapter.kl_weight,
            l2_weight=adapter.l2_weight,
            average_epochs=adapter.average_epochs,
        )


class TokenScore(NamedTuple):
    """How far the likeliest path of a model's output is from the transcript; of two scores the lower one is better."""

    errors: int  # output units to insert, delete or replace
    loss: float  # CTC, which tells apart what has the same errors


@dataclass(frozen=True)
class Score:
    """How far what a model writes is from the transcript of an utterance, or of several together."""

    word_errors: int
    character_errors: int


@dataclass
class Member:
    """An adapter, its utterances, optimiser and schedule.

    Args:
        parts: the adapter; its parameters are trained.
        train: indices of its training utterances in the data set.
        durations: seconds of each of those.
        held_out: indices of the utterances it is scored on.
        settings: of the training.
    """

    parts: Parts
    train: Sequence[int]
    durations: Sequence[float]
    held_out: Sequence[int]
    settings: Settings
    epochs: int = 0  # that it was trained for

    def __post_init__(self) -> None:
        self.parameters = [p.requires_grad_(True) for part in self.parts.values() for p in part.parameters()]
        self.start = [p.detach().clone() for p in self.parameters]
        self._sampler = SeededBatchSampler(
            global_rank=0,
            world_size=1,
            durations=list(self.durations),
            batch_size=self.settings.batch_size,
            randomization_factor=self.settings.randomization_factor,
            seed=self.settings.seed,
        )
        optim = dict(self.settings.optim)
        schedule = dict(optim.pop("sched", None) or {})
        optimizer = get_optimizer(optim.pop("name", "adam"))
        # One call for all tensors, where there is one.
        fused = {"fused": True} if "fused" in inspect.signature(optimizer).parameters else {}
        self._optimizer = optimizer(self.parameters, **{**fused, **optim})
        steps = math.ceil(len(self.train) / self.settings.batch_size) * self.settings.max_epochs
        prepared = prepare_lr_scheduler(self._optimizer, {**schedule, "max_steps": steps}) if schedule else None
        self._schedule = prepared["scheduler"] if prepared else None
        self._steps = 0
        self._mean: list[Tensor] | None = None  # over epochs

    def batches(self) -> Iterator[list[int]]:
        """The next epoch's: indices in the data set, batch by batch."""
        self._sampler.set_epoch(self.epochs)
        for batch in self._sampler:
            yield [self.train[i] for i in batch]

    @contextmanager
    def random_numbers(self) -> Iterator[None]:
        """In this block random numbers are the member's own, whoever is trained in between."""
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed + STEP_SEEDS * self._steps)
            yield

    def step(self) -> None:
        """Update the adapter from its gradients."""
        if self.settings.gradient_clip_val:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip_val)
        self._steps += 1
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._schedule is not None:
            self._schedule.step()

    def end_epoch(self) -> None:
        """An epoch is over."""
        self.epochs += 1
        if self.settings.average_epochs:
            now = [p.detach().clone() for p in self.parameters]
            mean = now if self._mean is None else self._mean
            self._mean = [torch.lerp(old, new, 1 / self.epochs) for old, new in zip(mean, now)]

    def saved(self) -> list[Tensor]:
        """The weights that would be saved now: the adapter's, or their mean over all epochs so far."""
        return [p.detach().clone() for p in self.parameters] if self._mean is None else list(self._mean)

    @contextmanager
    def as_saved(self) -> Iterator[None]:
        """In this block the adapter has the weights that would be saved now."""
        if self._mean is None:
            yield
            return
        trained = [p.detach().clone() for p in self.parameters]
        self._load(self._mean)
        try:
            yield
        finally:
            self._load(trained)

    def restore(self, weights: Sequence[Tensor]) -> None:
        """Give the adapter the weights that `saved` returned earlier."""
        self._mean = None
        self._load(weights)

    @torch.no_grad()
    def _load(self, weights: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, weights):
            parameter.copy_(value)
