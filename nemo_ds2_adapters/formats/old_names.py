"""The forms of an adapter before `Adapter`, for the parts that have not moved to it yet. To be deleted with them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nemo_ds2_adapters.adapters.adapter import Adapter, Info, mean, renamed
from nemo_ds2_adapters.adapters.attach import attach
from nemo_ds2_adapters.adapters.attached import attached_adapters
from nemo_ds2_adapters.adapters.blocks import adapter_names
from nemo_ds2_adapters.errors import naming
from nemo_ds2_adapters.formats import reading
from nemo_ds2_adapters.formats.file import adapters_bytes
from nemo_ds2_adapters.formats.reading import NEMO, ORIGINAL, OURS

if TYPE_CHECKING:
    from nemo.core import ModelPT
    from torch import Tensor

__all__ = ["NEMO", "ORIGINAL", "OURS", "FileContents", "StoredAdapter"]


@dataclass
class StoredAdapter:
    name: str
    prefix: str
    config: dict[str, Any]
    states: list[dict[str, Tensor]]
    paths: list[str] | None = None

    @property
    def full_name(self) -> str:
        return f"{self.prefix}:{self.name}" if self.prefix else self.name

    @property
    def parameters(self) -> int:
        return value_of(self, {}).parameters


@dataclass
class FileContents:
    format: str
    adapters: dict[str, StoredAdapter]
    info: dict[str, Any] = field(default_factory=dict)


def value_of(stored: StoredAdapter, info: Mapping[str, Any]) -> Adapter:
    points = stored.paths or [str(i) for i in range(len(stored.states))]
    keys = ("fingerprint", "base", "created", "versions", "metadata")
    about = Info(**{key: info[key] for key in keys}) if info else None
    return Adapter(stored.name, stored.config, dict(zip(points, stored.states)), stored.prefix, about)


def contents_of(file_format: str, adapters: Sequence[Adapter]) -> FileContents:
    stored = {
        a.name: StoredAdapter(a.name, a.module, dict(a.config), [dict(s) for s in a.weights.values()], a.points)
        for a in adapters
    }
    info = adapters[0].info
    return FileContents(file_format, stored, {**vars(info), "format_version": 1} if info else {})


def values_of(contents: FileContents) -> list[Adapter]:
    return [value_of(stored, contents.info) for stored in contents.adapters.values()]


def describe_adapters(
    model: ModelPT, name: str | Sequence[str] | None, metadata: Mapping[str, Any] | None = None
) -> FileContents:
    names = [name] if isinstance(name, str) else adapter_names(model) if name is None else name
    return contents_of(OURS, attached_adapters(model, names, metadata))


def attach_contents(
    model: ModelPT,
    contents: FileContents,
    path: str | os.PathLike[str],
    name: str | None = None,
    as_name: str | None = None,
    strict_base: bool = True,
) -> list[str]:
    chosen = [adapter for adapter in values_of(contents) if name in (None, adapter.name)]
    with naming(path):
        return [attach(model, adapter, as_name, strict_base) for adapter in chosen]


def with_adapters(contents: FileContents, adapters: Sequence[StoredAdapter]) -> FileContents:
    return FileContents(contents.format, {adapter.name: adapter for adapter in adapters}, dict(contents.info))


def named(adapter: StoredAdapter, name: str, taken: Sequence[str] = ()) -> StoredAdapter:
    return replace(adapter, name=renamed(value_of(adapter, {}), name, taken).name)


def averaged(adapters: Sequence[StoredAdapter], name: str, weights: Sequence[float] | None = None) -> StoredAdapter:
    result = mean([value_of(adapter, {}) for adapter in adapters], weights)
    return replace(adapters[0], name=name, states=[dict(state) for state in result.weights.values()])


def contents_bytes(contents: FileContents) -> bytes:
    return adapters_bytes(values_of(contents), contents.format)


def find_adapter(contents: FileContents, name: str, path: object) -> StoredAdapter:
    found = reading.find_adapter({a.name: a for a in values_of(contents)}, name, path)
    return contents.adapters[found.name]


def read_adapter_file(path: str | os.PathLike[str]) -> FileContents:
    file_format, adapters = reading.read_file(path)
    return contents_of(file_format, list(adapters.values()))


def read_adapter_bytes(data: bytes, label: str) -> FileContents:
    return contents_of(OURS, list(reading.read_adapter_bytes(data, label).values()))


def empty_stored_part(stored: StoredAdapter, **sizes: int) -> Any:
    from nemo_ds2_adapters.adapters.fitting import empty_part

    return empty_part(value_of(stored, {}), **sizes)
