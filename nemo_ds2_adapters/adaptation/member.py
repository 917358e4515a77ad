"""One adapter in training, with everything that is its own."""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from nemo.core.optim import get_optimizer, prepare_lr_scheduler
from torch import Tensor, nn

from nemo_ds2_adapters.adaptation.losses import EpochMean, Regulariser
from nemo_ds2_adapters.adaptation.modules import Modules
from nemo_ds2_adapters.adaptation.settings import Settings
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.data.sampler import SeededBatchSampler
from nemo_ds2_adapters.errors import InputError

STEP_SEEDS = 1_000_003  # apart, the seeds of a step's random numbers and of the next one's


class Member:
    """An adapter, its utterances, optimiser and schedule.

    Args:
        start: the adapter that training starts from.
        modules: made of it; their parameters are trained.
        train: positions of its training utterances in the data.
        durations: seconds of each of those.
        held_out: positions of the utterances it is scored on.
        settings: of the training.
    """

    def __init__(
        self,
        start: Adapter,
        modules: Modules,
        train: Sequence[int],
        durations: Sequence[float],
        held_out: Sequence[int],
        settings: Settings,
    ) -> None:
        self.modules, self.train, self.held_out, self.settings = modules, train, held_out, settings
        self.epochs = 0  # that it was trained for
        self.parameters = [p for module in modules.values() for p in module.parameters()]
        self.regulariser = Regulariser(self.parameters, settings.kl_weight, settings.l2_weight)
        self._start = start
        self._sampler = SeededBatchSampler(
            global_rank=0,
            world_size=1,
            durations=list(durations),
            batch_size=settings.batch_size,
            randomization_factor=settings.randomization_factor,
            seed=settings.seed,
        )
        steps = math.ceil(len(train) / settings.batch_size) * settings.max_epochs
        self._optimizer, self._schedule = _optimizer(self.parameters, settings.optim, steps)
        self._steps = 0
        self._mean = EpochMean()

    def batches(self) -> Iterator[list[int]]:
        """The next epoch's: positions in the data, batch by batch."""
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
            self._mean.add(self.parameters)

    def saved(self) -> list[Tensor]:
        """The weights that would be saved now: the adapter's, or their mean over all epochs so far."""
        return list(self._mean.weights) or [p.detach().clone() for p in self.parameters]

    def adapter(self) -> Adapter:
        """The adapter that would be saved now."""
        with self.as_saved():
            weights = {
                point: {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
                for point, module in self.modules.items()
            }
        return replace(self._start, weights=weights)

    @contextmanager
    def as_saved(self) -> Iterator[None]:
        """In this block the modules have the weights that would be saved now."""
        if not self._mean.weights:
            yield
            return
        trained = [p.detach().clone() for p in self.parameters]
        self._load(self._mean.weights)
        try:
            yield
        finally:
            self._load(trained)

    def restore(self, weights: Sequence[Tensor]) -> None:
        """Give the adapter the weights that `saved` returned earlier."""
        self._mean = EpochMean()
        self._load(weights)

    @torch.no_grad()
    def _load(self, weights: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, weights):
            parameter.copy_(value)


def _optimizer(parameters: Sequence[nn.Parameter], optim: Mapping[str, Any], steps: int) -> tuple[Any, Any]:
    """Optimiser and, if there is one, schedule.

    Raises:
        InputError: they do not take these arguments.
    """
    arguments = dict(optim)
    schedule = dict(arguments.pop("sched", None) or {})
    optimizer_class = get_optimizer(arguments.pop("name", "adam"))
    # One call for all tensors, where there is one.
    fused = {"fused": True} if "fused" in inspect.signature(optimizer_class).parameters else {}
    try:
        optimizer = optimizer_class(parameters, **{**fused, **arguments})
        prepared = prepare_lr_scheduler(optimizer, {**schedule, "max_steps": steps}) if schedule else None
    except (TypeError, ValueError, AttributeError, AssertionError) as error:
        raise InputError(f"model.optim: {error}") from error
    return optimizer, prepared["scheduler"] if prepared else None
