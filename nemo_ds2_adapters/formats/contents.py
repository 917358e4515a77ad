"""What an adapter file holds, in this package's format and in NeMo's, and whether it is sound in itself.

Both formats are one dict: `[module:]name` -> the state dicts of the adapter's parts, and `__cfg__` -> the configs.
This package's has a further entry, `INFO_KEY`, that NeMo does not look at.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nemo_ds2_adapters.adapters.blocks import GLOBAL_CFG, META_CFG
from nemo_ds2_adapters.adapters.names import split_name
from nemo_ds2_adapters.errors import AdapterFileError

FORMAT_VERSION = 1
CONFIG_KEY = "__cfg__"
INFO_KEY = "__nemo_ds2_adapters__"

OURS, NEMO, ORIGINAL = "nemo_ds2_adapters", "nemo", "original"

State = dict[str, Tensor]


@dataclass
class StoredAdapter:
    """One adapter of a file.

    Args:
        name: without module prefix.
        prefix: the modules it belongs to, '' for the default one.
        config: what builds it.
        states: state dict of every part, keys without the adapter's name.
        paths: of the blocks that hold the parts, if the file says so.
    """

    name: str
    prefix: str
    config: dict[str, Any]
    states: list[State]
    paths: list[str] | None = None

    @property
    def full_name(self) -> str:
        return f"{self.prefix}:{self.name}" if self.prefix else self.name

    @property
    def parameters(self) -> int:
        """Numbers in its floating-point tensors."""
        return sum(v.numel() for state in self.states for v in state.values() if v.is_floating_point())


@dataclass
class FileContents:
    """Adapters by name, and what the file says about itself (empty for formats that say nothing)."""

    format: str
    adapters: dict[str, StoredAdapter]
    info: dict[str, Any] = field(default_factory=dict)


def to_dict(contents: FileContents) -> dict[str, Any]:
    """The dict that `torch.save` writes; readable by NeMo's `model.load_adapters` as well."""
    adapters = contents.adapters.values()
    config: dict[str, Any] = {GLOBAL_CFG: {META_CFG: {"modules": {a.name: a.prefix for a in adapters}}}}
    result: dict[str, Any] = {}
    for adapter in adapters:
        result[adapter.full_name] = [
            {f"{adapter.name}.{key}": value for key, value in state.items()} for state in adapter.states
        ]
        config[adapter.name] = adapter.config
    return {**result, CONFIG_KEY: config, INFO_KEY: {**contents.info, "format_version": FORMAT_VERSION}}


def from_dict(content: Any) -> FileContents:
    """The adapters of a file in this package's or in NeMo's format, checked.

    Args:
        content: plain values and tensors.

    Raises:
        AdapterFileError: it does not hold sound adapters.
    """
    if not isinstance(content, dict) or not isinstance(content.get(CONFIG_KEY), dict):
        raise AdapterFileError("is not an adapter file: it has no section __cfg__")
    configs = content[CONFIG_KEY]
    info = content.get(INFO_KEY)
    if info is not None:
        _check_info(info)
    paths = info["paths"] if info else {}
    adapters = {}
    for key, states in content.items():
        if key not in (CONFIG_KEY, INFO_KEY):
            prefix, name = split_name(key)
            if name in adapters:
                raise AdapterFileError(f"holds two adapters called {name!r}")
            config = _checked_config(name, configs.get(name))
            states = _checked_states(name, states, exactly=info is not None)
            adapters[name] = StoredAdapter(name, prefix, config, states, _checked_paths(paths.get(name), states))
    if not adapters:
        raise AdapterFileError("holds no adapter")
    return FileContents(OURS if info is not None else NEMO, adapters, info or {})


def check_finite(name: str, states: list[State]) -> None:
    """Refuse weights that are not numbers.

    Raises:
        AdapterFileError: names the first such weight.
    """
    for state in states:
        for key, value in state.items():
            if value.is_floating_point() and value.numel() and not _is_finite(value):
                raise AdapterFileError(f"weight {key} of adapter {name!r} is not finite (NaN or infinity)")


def _is_finite(value: Tensor) -> bool:
    low, high = torch.aminmax(value)  # both NaN if any value is
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _check_info(info: Any) -> None:
    version = info.get("format_version") if isinstance(info, dict) else None
    if version != FORMAT_VERSION:
        raise AdapterFileError(
            f"has format version {version!r}, this version of nemo_ds2_adapters reads {FORMAT_VERSION}: "
            "update the package"
        )
    kinds = {"fingerprint": str, "created": str, "base": dict, "versions": dict, "metadata": dict, "paths": dict}
    for key, kind in kinds.items():
        if not isinstance(info.get(key), kind):
            raise AdapterFileError(f"its section {INFO_KEY} has no proper entry {key!r}")


def _checked_states(name: str, states: Any, exactly: bool) -> list[State]:
    if not isinstance(states, list) or not states or not all(isinstance(state, dict) for state in states):
        raise AdapterFileError(f"adapter {name!r} has no list of weights")
    result = []
    for state in states:
        # NeMo writes along the weights of other adapters whose names contain this one's.
        own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        if not own or (exactly and len(own) != len(state)):
            raise AdapterFileError(f"adapter {name!r} has no weights, or weights of others")
        if not all(isinstance(value, Tensor) for value in own.values()):
            raise AdapterFileError(f"adapter {name!r} has weights that are no tensors")
        result.append(own)
    check_finite(name, result)
    return result


def _checked_config(name: str, config: Any) -> dict[str, Any]:
    if not isinstance(config, dict) or not isinstance(config.get("_target_"), str):
        raise AdapterFileError(f"adapter {name!r} has no config, or one without _target_")
    if not isinstance(config.get("enabled", True), bool):
        raise AdapterFileError(f"the config of adapter {name!r} has enabled={config['enabled']!r}, not true or false")
    return config


def _checked_paths(paths: Any, states: list[State]) -> list[str] | None:
    if paths is None:
        return None
    if not isinstance(paths, list) or len(paths) != len(states) or not all(isinstance(path, str) for path in paths):
        raise AdapterFileError("its list of places does not fit its weights")
    return paths
