"""One adapter in training, with everything that is its own."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from nemo.core.optim import get_optimizer, prepare_lr_scheduler
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.training.sampler import SeededBatchSampler
from nemo_ds2_adapters.training.together.stack import Parts

STEP_SEEDS = 1_000_003  # apart, the seeds of a step's random numbers and of the next one's


@dataclass(frozen=True)
class Settings:
    """How an adapter is trained."""

    optim: dict[str, Any]  # NeMo's section `model.optim`, plain values
    batch_size: int = 4  # utterances
    max_epochs: int = 15
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
        return cls(
            optim=OmegaConf.to_container(cfg.model.optim, resolve=True),  # type: ignore[arg-type]
            batch_size=data.batch_size,
            max_epochs=trainer.max_epochs,
            gradient_clip_val=trainer.gradient_clip_val or 0.0,
            randomization_factor=data.randomization_factor,
            seed=cfg.seed,
            kl_weight=adapter.kl_weight,
            l2_weight=adapter.l2_weight,
            average_epochs=adapter.average_epochs,
        )


@dataclass(frozen=True)
class EpochScore:
    """An adapter on the utterances held out from its training, after an epoch. Sums over utterances."""

    loss: float  # CTC
    word_errors: int
    character_errors: int


@dataclass
class Member:
    """An adapter, its utterances, optimiser, schedule and what was seen of it.

    Args:
        parts: the adapter; its parameters are trained.
        train: indices of its training utterances in the data set.
        durations: seconds of each of those.
        held_out: indices of the utterances it is scored on after every epoch.
        settings: of the training.
    """

    parts: Parts
    train: Sequence[int]
    durations: Sequence[float]
    held_out: Sequence[int]
    settings: Settings
    scores: list[EpochScore] = field(default_factory=list)
    weights: list[list[Tensor]] = field(default_factory=list)  # after each epoch, as they would be saved

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
        self._optimizer = get_optimizer(optim.pop("name", "adam"))(self.parameters, **optim)
        steps = math.ceil(len(self.train) / self.settings.batch_size) * self.settings.max_epochs
        prepared = prepare_lr_scheduler(self._optimizer, {**schedule, "max_steps": steps}) if schedule else None
        self._schedule = prepared["scheduler"] if prepared else None
        self._steps = 0

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Indices in the data set, batch by batch."""
        self._sampler.set_epoch(epoch)
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

    def keep_weights(self) -> None:
        """At the end of an epoch: keep the weights of the adapter, or their mean over all epochs so far."""
        now = [p.detach().clone() for p in self.parameters]
        if self.settings.average_epochs and self.weights:
            share = 1 / (len(self.weights) + 1)
            now = [torch.lerp(mean, new, share) for mean, new in zip(self.weights[-1], now)]
        self.weights.append(now)

    @torch.no_grad()
    def load(self, weights: Sequence[Tensor]) -> None:
        """Give the adapter other weights."""
        for parameter, value in zip(self.parameters, weights):
            parameter.copy_(value)
