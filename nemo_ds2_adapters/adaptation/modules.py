"""Adapters that are not attached, as modules: how many of them run in one model."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from nemo.collections.asr.models import ASRModel
from nemo.collections.common.parts.adapter_modules import LinearAdapter
from nemo.core.classes.mixins.adapter_mixin_strategies import ResidualAddAdapterStrategy
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.blocks import adapter_layer, adapter_parts
from nemo_ds2_adapters.adapters.enabling import enabled_adapters
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
