"""One adapter in training, with everything that is its own; and how many of them run in one model."""

import copy
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from nemo.collections.asr.models import ASRModel
from nemo.collections.common.parts.adapter_modules import LinearAdapter
from nemo.core.classes.mixins.adapter_mixin_strategies import ResidualAddAdapterStrategy
from nemo.core.optim import get_optimizer, prepare_lr_scheduler
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nemo_ds2_adapters.adaptation.losses import EpochMean, Regulariser
from nemo_ds2_adapters.adaptation.settings import Settings
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.blocks import adapter_layer, adapter_parts
from nemo_ds2_adapters.adapters.enabling import enabled_adapters
from nemo_ds2_adapters.data.sampler import SeededBatchSampler
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules import MLPAdapter

Modules = dict[str, nn.Module]  # one adapter: point, the path of a block in the model -> its module there

ENCODER_POINTS = "encoder.adapter_points."


def modules_of(adapter: Adapter, model: ASRModel, name: str) -> Modules:
    """Modules of an adapter's own, trainable.

    Args:
        adapter: its weights by point, as paths.
        model: decides device and precision.
        name: of an attached adapter of the same architecture, which is copied.
    """
    modules = {path: copy.deepcopy(module) for path, module in adapter_parts(model, name)}
    for path, module in modules.items():
        module.load_state_dict(adapter.weights[path])
        module.requires_grad_(True)
    return modules


def can_share_batch(modules: Modules) -> bool:
    """Whether `side_by_side` computes what the adapter computes alone in training mode."""
    return all(path.startswith(ENCODER_POINTS) and _is_plain(module) for path, module in modules.items())


@contextmanager
def side_by_side(model: ASRModel, adapters: Sequence[Modules]) -> Iterator[None]:
    """In this block, each adapter runs on its own share of the batch's rows.

    Args:
        model: without any adapter enabled.
        adapters: of one architecture, as `can_share_batch` has it. The batch's rows are those of the first one, then
            those of the second, and so on, as many of each.
    """
    with ExitStack() as stack:
        for path in adapters[0]:
            handle = _add_to_rows(model.get_submodule(path), [adapter[path] for adapter in adapters])
            stack.callback(handle.remove)
        yield


@contextmanager
def installed(model: ASRModel, name: str, modules: Modules) -> Iterator[None]:
    """In this block, these modules stand in the place of those of an attached adapter, which is enabled."""
    layers = {path: adapter_layer(model.get_submodule(path)) for path in modules}
    before = {path: layer[name] for path, layer in layers.items()}
    try:
        for path, layer in layers.items():
            layer[name] = modules[path]
        with enabled_adapters(model, name):
            yield
    finally:
        for path, layer in layers.items():
            layer[name] = before[path]


def _add_to_rows(block: nn.Module, modules: Sequence[nn.Module]) -> RemovableHandle:
    def add(block: nn.Module, arguments: tuple[Tensor], output: Tensor) -> Tensor:
        (x,) = arguments
        # One adapter's rows fit into the processor's cache; stacked weights on all rows at once take 3 times longer.
        return torch.cat([rows + module(rows) for rows, module in zip(x.chunk(len(modules)), modules)])

    return block.register_forward_hook(add)


def _is_plain(module: nn.Module) -> bool:
    """Whether it is added to its input, and computes the same in training and in eval mode."""
    if not isinstance(module, MLPAdapter | LinearAdapter):
        return False
    strategy: Any = module.adapter_strategy
    return (
        type(strategy) is ResidualAddAdapterStrategy
        and strategy.stochastic_depth == 0
        and strategy.l2_lambda == 0
        and not any(isinstance(inner, nn.Dropout) and inner.p > 0 for inner in module.modules())
    )


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
    """Optimiser and, if there is one, schedule. Raises InputError: they do not take these arguments."""
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
