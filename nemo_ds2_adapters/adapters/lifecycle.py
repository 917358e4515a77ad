"""List, delete, rename, copy and average adapters, with `model.cfg`, modules and saved `.nemo` in step."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from nemo.core import ModelPT
from omegaconf import OmegaConf, open_dict
from torch import Tensor

from nemo_ds2_adapters.adapters.attach import add_adapter, detach
from nemo_ds2_adapters.adapters.blocks import (
    adapter_blocks,
    adapter_layer,
    adapter_names,
    adapter_parts,
    adapters_cfg,
    existing_name,
    is_in_modules,
    module_prefix,
    recorded_modules,
    share_config,
)
from nemo_ds2_adapters.adapters.names import check_adapter_name, check_reloadable, split_name
from nemo_ds2_adapters.errors import AdapterNameError, InputError


def list_adapters(model: ModelPT) -> list[str]:
    """Names of all attached adapters without module prefix, enabled or not, in the order of their application."""
    return adapter_names(model)


def delete_adapter(model: ModelPT, name: str) -> None:
    """Remove an adapter: its modules, its config and what the config records about it.

    Raises:
        AdapterNameError: the model has no such adapter.
    """
    detach(model, existing_name(model, name))


def rename_adapter(model: ModelPT, old: str, new: str) -> None:
    """Give an adapter another name; it keeps its place among the adapters, so outputs do not change.

    Raises:
        AdapterNameError: there is no adapter `old`, or `new` is not legal or exists.
    """
    old = existing_name(model, old)
    new = _target_name(model, old, new)
    if new == old:
        return
    check_adapter_name(new, adapter_names(model))
    check_reloadable(new, {key for _, part in adapter_parts(model, old) for key in part.state_dict()})
    for _, block in adapter_blocks(model):
        layer = adapter_layer(block)
        if old in layer:
            for key in list(layer):
                layer[new if key == old else key] = layer.pop(key)
            if block.adapter_name == old:
                block.adapter_name = new
    for section in (adapters_cfg(model), recorded_modules(model)):
        with open_dict(section):
            keys = list(section)
            for key in keys[keys.index(old) :] if old in section else []:
                section[new if key == old else key] = section.pop(key)
    share_config(model)


def copy_adapter(model: ModelPT, source: str, target: str) -> None:
    """Attach a copy of an adapter under another name, disabled: the model's output does not change.

    The copy is the starting point for another user's training, or a backup.

    Raises:
        AdapterNameError: there is no adapter `source`, or `target` is not legal or exists.
    """
    average_adapters(model, [source], target)


def average_adapters(
    model: ModelPT, names: Sequence[str], target: str, weights: Sequence[float] | None = None
) -> None:
    """Attach the weighted mean of several adapters' weights under a new name, disabled.

    Args:
        model: where the adapters are attached.
        names: adapters of the same architecture in the same modules.
        target: name of the mean.
        weights: one per name, at least 0, any scale; None weighs them equally.

    Raises:
        AdapterNameError: an adapter does not exist, or `target` is not legal or exists.
        InputError: no names, unsuitable weights, or architectures that differ.
    """
    names = [existing_name(model, name) for name in names]
    shares = normalised_weights(names, weights)
    first = names[0]
    target = _target_name(model, first, target)
    for other in names[1:]:
        _check_same_architecture(model, first, other)
    sources = [[part for _, part in adapter_parts(model, name)] for name in names]
    prefix = module_prefix(model, first)
    with torch.random.fork_rng(devices=[]):  # its random initial weights are overwritten
        add_adapter(model, f"{prefix}:{target}" if prefix else target, {**_entry(model, first), "enabled": False})
    for (_, part), *originals in zip(adapter_parts(model, target), *sources):
        states = [original.state_dict() for original in originals]
        part.load_state_dict({key: weighted_mean([state[key] for state in states], shares) for key in states[0]})
        for parameter, original in zip(part.parameters(), originals[0].parameters()):
            parameter.requires_grad_(original.requires_grad)


def _target_name(model: ModelPT, source: str, target: str) -> str:
    prefix, plain = split_name(target)
    if prefix and not is_in_modules(model, source, prefix):
        raise AdapterNameError(
            f"{target!r} names the module {prefix!r}, but {source!r} sits in "
            f"{module_prefix(model, source) or model.default_adapter_module_name!r}: give the name {plain!r} alone"
        )
    return plain


def _entry(model: ModelPT, name: str) -> dict[str, Any]:
    return OmegaConf.to_container(adapters_cfg(model)[name], resolve=True)  # type: ignore[return-value]


def _check_same_architecture(model: ModelPT, first: str, other: str) -> None:
    one, two = ({"module": module_prefix(model, n), **_entry(model, n), "enabled": None} for n in (first, other))
    for key in one | two:
        if one.get(key) != two.get(key):
            raise InputError(
                f"adapters {first!r} and {other!r} cannot be averaged, they differ in {key}: "
                f"{one.get(key)!r} and {two.get(key)!r}"
            )


def normalised_weights(names: Sequence[str], weights: Sequence[float] | None) -> list[float]:
    """Weights of a mean, with sum 1.

    Raises:
        InputError: no names, not one weight per name, or a weight that is negative or not finite.
    """
    if not names:
        raise InputError("no adapters to average: name at least one")
    if weights is None:
        return [1 / len(names)] * len(names)
    if len(weights) != len(names):
        raise InputError(f"{len(names)} adapters and {len(weights)} weights: give one weight per adapter")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights):
        raise InputError(f"weights={list(weights)}: expected finite numbers of at least 0, not all 0")
    return [w / sum(weights) for w in weights]


def weighted_mean(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The mean of tensors of one shape, computed in double precision; of a counter, the first one's value."""
    if not values[0].is_floating_point() or len(values) == 1:
        return values[0]  # a counter such as batch norm's has no mean
    return sum(v.double() * share for v, share in zip(values, shares)).to(values[0].dtype)  # type: ignore[union-attr]
