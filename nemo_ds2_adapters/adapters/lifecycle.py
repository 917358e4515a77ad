"""Delete, rename, copy and average adapters, with `model.cfg`, modules and saved `.nemo` in step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from omegaconf import open_dict

from nemo_ds2_adapters.adapters.adapter import mean
from nemo_ds2_adapters.adapters.attach import attach, detach
from nemo_ds2_adapters.adapters.attached import without_info
from nemo_ds2_adapters.adapters.blocks import (
    adapter_blocks,
    adapter_layer,
    adapter_parts,
    adapters_cfg,
    existing_name,
    is_in_modules,
    list_adapters,
    module_prefix,
    recorded_modules,
    share_config,
)
from nemo_ds2_adapters.adapters.names import check_adapter_name, check_reloadable, split_name
from nemo_ds2_adapters.errors import AdapterNameError

if TYPE_CHECKING:
    from nemo.core import ModelPT


def delete_adapter(model: ModelPT, name: str) -> None:
    """Remove an adapter: its modules, its config and what the config records about it. Raises AdapterNameError."""
    detach(model, existing_name(model, name))


def rename_adapter(model: ModelPT, old: str, new: str) -> None:
    """Give an adapter another name; it keeps its place among the adapters, so outputs do not change.

    Raises AdapterNameError: there is no adapter `old`, or `new` is not legal or exists.
    """
    old = existing_name(model, old)
    new = _target_name(model, old, new)
    if new == old:
        return
    check_adapter_name(new, list_adapters(model))
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

    The copy is the starting point for another user's training, or a backup. Raises AdapterNameError: there is no
    adapter `source`, or `target` is not legal or exists.
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
    combined = mean([without_info(model, name) for name in names], weights)
    first = existing_name(model, names[0])
    target = _target_name(model, first, target)
    check_adapter_name(target, list_adapters(model))
    attach(model, replace(combined, config={**combined.config, "enabled": False}), target)
    for (_, part), (_, original) in zip(adapter_parts(model, target), adapter_parts(model, first)):
        for parameter, like in zip(part.parameters(), original.parameters()):
            parameter.requires_grad_(like.requires_grad)


def _target_name(model: ModelPT, source: str, target: str) -> str:
    prefix, plain = split_name(target)
    if prefix and not is_in_modules(model, source, prefix):
        raise AdapterNameError(
            f"{target!r} names the module {prefix!r}, but {source!r} sits in "
            f"{module_prefix(model, source) or model.default_adapter_module_name!r}: give the name {plain!r} alone"
        )
    return plain
