"""Whether an adapter's config and its weights belong together. Nothing of either is believed before it is checked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.errors import AdapterFileError

if TYPE_CHECKING:
    from torch import nn

STRATEGY = "adapter_strategy"
NO_ARGUMENTS = ("_target_", "enabled", "layers", STRATEGY)  # of the adapter's class, or without effect on sizes
CLASS_KEYS = {"_target_", "_args_", "_convert_", "_partial_", "_recursive_"}  # by which Hydra makes objects
MAX_BUFFER_NUMBERS = 2**24  # that a class makes up by itself, such as a table of positions


def check_config(adapter: Adapter) -> None:
    """Check a config that comes from a file.

    Raises AdapterFileError: it names classes that are no adapters or not loaded, or sizes that the weights do not
    have.
    """
    _check_sizes(adapter, _adapter_class(adapter))


def empty_part(adapter: Adapter, **sizes: int) -> nn.Module:
    """The module that an adapter's config describes, without memory for its weights; raises what `check_config` does.

    `sizes` are arguments of its class that go before those in the config, such as `in_features`.
    """
    import torch

    check_config(adapter)
    config = {key: value for key, value in adapter.config.items() if key not in ("_target_", "enabled", "layers")}
    with torch.device("meta"):
        return _adapter_class(adapter)(**{**config, **sizes})


def _adapter_class(adapter: Adapter) -> type:
    """Only adapters and strategies that the program has loaded already: other classes may do anything when made."""
    from nemo.collections.common.parts.adapter_modules import AdapterModuleUtil
    from nemo.core.classes.mixins.adapter_mixin_strategies import AbstractAdapterStrategy

    import nemo_ds2_adapters.modules  # noqa: F401  # whose adapters a file may name

    config = dict(adapter.config)
    strategy = config.pop(STRATEGY, None)
    adapter_class = _loaded_class(adapter.name, config.pop("_target_", None), AdapterModuleUtil, "adapter")
    if isinstance(strategy, dict):
        strategy = dict(strategy)
        _loaded_class(adapter.name, strategy.pop("_target_", None), AbstractAdapterStrategy, "adapter strategy")
    if CLASS_KEYS & {*_texts([config, strategy], keys_only=True)}:
        raise AdapterFileError(f"the config of adapter {adapter.name!r} names classes where none belong")
    if any("${" in text for text in _texts(adapter.config)):
        raise AdapterFileError(f"the config of adapter {adapter.name!r} has interpolations, a file must not")
    return adapter_class


def _loaded_class(name: str, path: Any, kind: type, called: str) -> type:
    module_name, _, class_name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    found = getattr(sys.modules.get(module_name), class_name, None)
    if found is None:
        raise AdapterFileError(
            f"adapter {name!r} is a {path}, which this program has not loaded: import its package if you trust it"
        )
    if not isinstance(found, type) or not issubclass(found, kind):
        raise AdapterFileError(f"the config of adapter {name!r} names {path}, which is no {called}")
    return found


def _check_sizes(adapter: Adapter, adapter_class: type) -> None:
    """Build the adapter without memory and compare: a config must not make us allocate what the file lacks."""
    import torch

    config = {key: value for key, value in adapter.config.items() if key not in NO_ARGUMENTS}
    try:
        with torch.device("meta"):
            part = adapter_class(**config)
    except Exception as error:  # whatever a class may raise on arguments that nobody checked
        reason = " ".join(str(error).split())[:300]
        raise AdapterFileError(f"adapter {adapter.name!r} cannot be built from its config: {reason}") from error
    shapes = {key: value.shape for key, value in part.state_dict().items()}
    own = sum(b.numel() for module in part.modules() for b in module.buffers(recurse=False))
    if own > MAX_BUFFER_NUMBERS:
        raise AdapterFileError(f"adapter {adapter.name!r} would take {own} numbers that are not in it")
    own_shapes = [{key: value.shape for key, value in state.items()} for state in adapter.weights.values()]
    if shapes not in own_shapes or any(state.keys() != shapes.keys() for state in own_shapes):
        raise AdapterFileError(f"the config of adapter {adapter.name!r} and its weights do not belong together")


def _texts(value: Any, keys_only: bool = False) -> Iterator[str]:
    """The keys of nested dictionaries and lists, and the texts that are values."""
    if isinstance(value, dict):
        yield from map(str, value)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _texts(item, keys_only)
    elif isinstance(value, str) and not keys_only:
        yield value
