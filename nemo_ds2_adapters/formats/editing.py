"""Adapters of files, named anew, taken out, put together and averaged without a model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from nemo_ds2_adapters.adapters.lifecycle import normalised_weights, weighted_mean
from nemo_ds2_adapters.adapters.names import check_adapter_name, check_reloadable
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.contents import INFO_KEY, NEMO, ORIGINAL, FileContents, StoredAdapter, to_dict
from nemo_ds2_adapters.formats.file import file_bytes
from nemo_ds2_adapters.formats.original import to_original


def contents_bytes(contents: FileContents) -> bytes:
    """The file that holds these adapters, in the format they came in.

    Raises:
        InputError: the original's format cannot hold them.
    """
    if contents.format == ORIGINAL:
        if len(contents.adapters) != 1:
            raise InputError(f"the original's format holds one adapter, not {len(contents.adapters)}")
        (adapter,) = contents.adapters.values()
        return file_bytes(to_original(adapter))
    content = to_dict(contents)
    if contents.format == NEMO:
        del content[INFO_KEY]
    return file_bytes(content)


def with_adapters(contents: FileContents, adapters: Sequence[StoredAdapter]) -> FileContents:
    """The same file with other adapters; what it says about each of them follows."""
    by_name = {adapter.name: adapter for adapter in adapters}
    info = dict(contents.info)
    if info:
        info["paths"] = {name: adapter.paths for name, adapter in by_name.items()}
        info["parameters"] = {name: adapter.parameters for name, adapter in by_name.items()}
    return FileContents(contents.format, by_name, info)


def named(adapter: StoredAdapter, name: str, taken: Sequence[str] = ()) -> StoredAdapter:
    """The adapter under another name.

    Raises:
        AdapterNameError: the name is not legal, or taken.
    """
    check_adapter_name(name, taken)
    check_reloadable(name, {key for state in adapter.states for key in state})
    return replace(adapter, name=name)


def averaged(adapters: Sequence[StoredAdapter], name: str, weights: Sequence[float] | None = None) -> StoredAdapter:
    """The weighted mean of adapters of one architecture, under a name of its own.

    Args:
        adapters: those to be averaged.
        name: of the result, legal.
        weights: one per adapter, at least 0, any scale; None weighs them equally.

    Raises:
        InputError: no adapters, unsuitable weights, or architectures that differ.
    """
    shares = normalised_weights([adapter.name for adapter in adapters], weights)
    first = adapters[0]
    for other in adapters[1:]:
        _check_same_architecture(first, other)
    states: list[dict[str, Tensor]] = [
        {key: weighted_mean([state[key] for state in parts], shares) for key in parts[0]}
        for parts in zip(*(adapter.states for adapter in adapters))
    ]
    return replace(first, name=name, states=states)


def _check_same_architecture(first: StoredAdapter, other: StoredAdapter) -> None:
    one, two = _architecture(first), _architecture(other)
    for key in one | two:
        if one.get(key) != two.get(key):
            raise InputError(
                f"adapters {first.name!r} and {other.name!r} cannot be averaged, they differ in {key}: "
                f"{one.get(key)!r} and {two.get(key)!r}"
            )


def _architecture(adapter: StoredAdapter) -> dict[str, Any]:
    return {
        "module": adapter.prefix,
        **adapter.config,
        "enabled": None,
        "places": adapter.paths,
        "shapes": [{key: list(value.shape) for key, value in state.items()} for state in adapter.states],
    }
