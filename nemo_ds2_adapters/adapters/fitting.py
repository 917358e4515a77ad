"""Whether a stored adapter fits a model, and putting it there. Nothing of a file is believed before it is checked."""

import sys
from typing import Any

import torch
from nemo.collections.common.parts.adapter_modules import AdapterModuleUtil
from nemo.core import ModelPT
from nemo.core.classes.mixins.adapter_mixin_strategies import AbstractAdapterStrategy
from torch import nn

from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.blocks import adapter_parts
from nemo_ds2_adapters.errors import AdapterFileError
from nemo_ds2_adapters.formats.contents import State, StoredAdapter, check_finite

STRATEGY = "adapter_strategy"
NO_ARGUMENTS = ("_target_", "enabled", "layers", STRATEGY)  # of the adapter's class, or without effect on sizes
CLASS_KEYS = {"_target_", "_args_", "_convert_", "_partial_", "_recursive_"}  # by which Hydra makes objects
MAX_BUFFER_NUMBERS = 2**24  # that a class makes up by itself, such as a table of positions


def check_config(adapter: StoredAdapter) -> None:
    """Check a config that comes from a file.

    Raises:
        AdapterFileError: it names classes that are no adapters or not loaded, or sizes that the weights do not have.
    """
    _check_sizes(adapter, _adapter_class(adapter))


def empty_part(adapter: StoredAdapter, **sizes: int) -> nn.Module:
    """The module that an adapter's config describes, without memory for its weights.

    Args:
        adapter: of a file.
        sizes: arguments of its class that go before those in the config, such as `in_features`.

    Raises:
        AdapterFileError: what `check_config` raises.
    """
    check_config(adapter)
    config = {key: value for key, value in adapter.config.items() if key not in ("_target_", "enabled", "layers")}
    with torch.device("meta"):
        return _adapter_class(adapter)(**{**config, **sizes})


def attach_stored(model: ModelPT, adapter: StoredAdapter, name: str) -> None:
    """Add an adapter of a file to the model under a legal name. The caller undoes it if this raises.

    Raises:
        AdapterFileError: the adapter does not fit; says what.
    """
    try:
        with torch.random.fork_rng(devices=[]):  # its random initial weights are overwritten
            add_adapter(model, f"{adapter.prefix}:{name}" if adapter.prefix else name, adapter.config)
    except ValueError as error:
        raise AdapterFileError(f"adapter {adapter.name!r} does not fit the model: {error}") from error
    states = _states_by_path(adapter, [path for path, _ in adapter_parts(model, name)])
    for (path, part), state in zip(adapter_parts(model, name), states):
        _load(part, state, f"{path}.{adapter.name}")
    check_finite(name, [part.state_dict() for _, part in adapter_parts(model, name)])  # in the model's precision


def _adapter_class(adapter: StoredAdapter) -> type:
    """Only adapters and strategies that the program has loaded already: other classes may do anything when made."""
    config = dict(adapter.config)
    strategy = config.pop(STRATEGY, None)
    adapter_class = _loaded_class(adapter.name, config.pop("_target_"), AdapterModuleUtil, "adapter")
    if isinstance(strategy, dict):
        strategy = dict(strategy)
        _loaded_class(adapter.name, strategy.pop("_target_", None), AbstractAdapterStrategy, "adapter strategy")
    if CLASS_KEYS & {*_keys(config), *_keys(strategy)}:
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


def _check_sizes(adapter: StoredAdapter, adapter_class: type) -> None:
    """Build the adapter without memory and compare: a config must not make us allocate what the file lacks."""
    config = {key: value for key, value in adapter.config.items() if key not in NO_ARGUMENTS}
    try:
        with torch.device("meta"):
            part = adapter_class(**config)
    except Exception as error:  # whatever a class may raise on arguments that nobody checked
        raise AdapterFileError(f"adapter {adapter.name!r} cannot be built from its config: {error}") from error
    shapes = {key: value.shape for key, value in part.state_dict().items()}
    own = sum(b.numel() for module in part.modules() for b in module.buffers(recurse=False))
    if own > MAX_BUFFER_NUMBERS:
        raise AdapterFileError(f"adapter {adapter.name!r} would take {own} numbers that are not in the file")
    stored = [{key: value.shape for key, value in state.items()} for state in adapter.states]
    if shapes not in stored or any(state.keys() != shapes.keys() for state in stored):
        raise AdapterFileError(f"the config of adapter {adapter.name!r} and its weights do not belong together")


def _states_by_path(adapter: StoredAdapter, paths: list[str]) -> list[State]:
    if len(paths) != len(adapter.states):
        raise AdapterFileError(
            f"adapter {adapter.name!r} has {len(adapter.states)} parts, in the model there is room for {len(paths)}"
        )
    if adapter.paths is None:
        return adapter.states
    if sorted(adapter.paths) != sorted(paths):
        raise AdapterFileError(f"adapter {adapter.name!r} sits in {adapter.paths}, the model has {paths} for it")
    return [adapter.states[adapter.paths.index(path)] for path in paths]


def _load(part: nn.Module, state: State, where: str) -> None:
    for key, value in part.state_dict().items():
        if state[key].shape != value.shape or state[key].is_floating_point() != value.is_floating_point():
            raise AdapterFileError(
                f"{where}.{key} is {state[key].dtype} {list(state[key].shape)} in the file, "
                f"{value.dtype} {list(value.shape)} in the model"
            )
    part.load_state_dict(state)


def _keys(value: Any) -> list[str]:
    if isinstance(value, list):
        return [key for item in value for key in _keys(item)]
    return [k for key, item in value.items() for k in [key, *_keys(item)]] if isinstance(value, dict) else []


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in [key, *_texts(item)]]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []
