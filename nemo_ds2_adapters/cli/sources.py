"""What has adapters in it, a `.nemo`, a `.pt` or a store, seen as one kind of thing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nemo_ds2_adapters.adapters.adapter import Adapter, mean, renamed
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.file import write_adapters
from nemo_ds2_adapters.formats.reading import OURS, describe, find_adapter, look_into
from nemo_ds2_adapters.store.store import AdapterStore

if TYPE_CHECKING:
    from nemo_ds2_adapters.cli.model_source import ModelSource

Row = dict[str, Any]
Progress = Callable[[float], None]
Source: TypeAlias = "StoreSource | FileSource | ModelSource"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Findings:
    """What a check found: how many adapters, what was mended, and what is wrong."""

    checked: int
    repaired: Sequence[str]
    problems: Sequence[str]


def open_source(text: str, create: bool = False) -> Source:
    """The `.nemo`, `.pt` or store at a path or URL, or an InputError; `create` makes a store if there is none."""
    path = Path(text)
    if not text:
        raise InputError("the SOURCE is empty: give a .nemo, a .pt, or the directory of a store")
    if create or "://" in text or path.is_dir():
        return StoreSource(AdapterStore(text, create=create))
    if not path.exists():
        raise InputError(f"{text}: no such file or store")
    if path.suffix not in (".nemo", ".pt"):
        raise InputError(f"{text}: expected a .nemo, a .pt, or the directory of a store")
    if path.suffix == ".pt":
        return FileSource(path)
    from nemo_ds2_adapters.cli.model_source import ModelSource  # which imports NeMo

    return ModelSource(path)


class StoreSource:
    """A store; where a model or a file has an adapter's name, this has the user id."""

    format = OURS  # in which its adapters are exported if nobody asks for another one

    def __init__(self, store: AdapterStore) -> None:
        self.store = store

    def rows(self, prefix: str, since: datetime | None) -> list[Row]:
        """One row per user id that begins so. Of an adapter that cannot be read, a warning is logged."""
        entries = self.store.entries(prefix, since, on_error=lambda error: logger.warning("%s", error))
        return [
            {
                "user_id": entry.user_id,
                "version": entry.version,
                "stored": entry.stored,
                "type": entry.type,
                "parameters": entry.parameters,
                "bytes": entry.size,
                "base": entry.fingerprint,
            }
            for entry in sorted(entries, key=lambda entry: entry.user_id)
        ]

    def about(self, name: str, version: int | None) -> Row:
        """What there is to be said of an adapter."""
        versions = [
            {"version": version.number, "time": version.stored.isoformat(), "sha256": version.sha256}
            for version in self.store.versions(name)
        ]
        return {"user_id": name, **described(self.get(name, version), self.format), "stored": versions}

    def get(self, name: str, version: int | None) -> Adapter:
        """One adapter, from a store or file with `StoredTensor`s for weights."""
        return self.store.look_into(name, version)[1]

    def take(self, adapter: Adapter, label: str, name: str | None, any_base: bool) -> str:
        """Put in an adapter, under a name or its own, and return that. `label` is where it comes from."""
        user_id = adapter.metadata.get("user_id") if name is None else name
        if user_id is None:
            raise InputError(f"{label}: does not say whose it is, give the user id with --as")
        if adapter.info is None:
            raise InputError(f"{label}: does not say for which base it was made: give its base with --base")
        self.store.put(user_id, adapter)
        return user_id

    def rename(self, old: str, new: str) -> None:
        """Give an adapter another name."""
        self.store.rename(old, new)

    def average(self, names: Sequence[str], target: str, weights: Sequence[float] | None) -> None:
        """Put in the weighted mean of several adapters."""
        self.store.average(names, target, weights)

    def delete(self, name: str, version: int | None) -> None:
        """Remove an adapter, or one version of it."""
        self.store.delete(name, version)

    def erase(self, name: str) -> bool:
        """Remove everything of a person; whether there was anything."""
        return self.store.erase(name)

    def verify(self, on_progress: Progress) -> Findings:
        """Read and check all adapters, and mend what can be mended without loss."""
        report = self.store.verify(on_progress)
        return Findings(report.versions, report.repaired, report.problems)


class WithoutHistory:
    """Of a file and of a model: there is one of each adapter, and nobody knows since when."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def erase(self, name: str) -> bool:
        raise InputError(f"{self.path}: --erase is for stores, where it removes everything of a person")

    def refuse(self, since: datetime | None = None, version: int | None = None) -> None:
        if since is not None:
            raise InputError(f"{self.path}: only stores know when an adapter was stored, leave out --since")
        if version is not None:
            raise InputError(f"{self.path}: only stores keep versions, leave out --version")


def row(adapter: Adapter) -> Row:
    """An adapter's line in a list."""
    target = adapter.config["_target_"]
    return {"name": adapter.name, "module": adapter.module, "type": target, "parameters": adapter.parameters}


def described(adapter: Adapter, file_format: str) -> Row:
    """What `inspect` says of an adapter."""
    about = {"name": adapter.name, **describe(adapter), "format": file_format}
    return about | (vars(adapter.info) if adapter.info else {})


class FileSource(WithoutHistory):
    """A `.pt` in any of the three formats, which it keeps. It is read and checked in full, and nothing is executed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.format, self._adapters = look_into(path)

    def rows(self, prefix: str, since: datetime | None) -> list[Row]:
        self.refuse(since=since)
        return [row(adapter) for adapter in self._adapters.values() if adapter.name.startswith(prefix)]

    def about(self, name: str, version: int | None) -> Row:
        return described(self.get(name, version), self.format)

    def get(self, name: str, version: int | None) -> Adapter:
        self.refuse(version=version)
        return find_adapter(self._adapters, name, self.path)

    def take(self, adapter: Adapter, label: str, name: str | None, any_base: bool) -> str:
        """Refused: a file says about all its adapters at once for which base and person they are."""
        raise InputError(f"{self.path}: adapters are imported into a .nemo or a store; a .pt is written by export")

    def rename(self, old: str, new: str) -> None:
        """The order stays."""
        chosen = self.get(old, None)
        other = renamed(chosen, new, list(self._adapters))
        self._write(other if adapter is chosen else adapter for adapter in self._adapters.values())

    def average(self, names: Sequence[str], target: str, weights: Sequence[float] | None) -> None:
        combined = mean([self.get(name, None) for name in names], weights)
        self._write([*self._adapters.values(), renamed(combined, target, list(self._adapters))])

    def delete(self, name: str, version: int | None) -> None:
        """The last one stays."""
        chosen = self.get(name, version)
        if len(self._adapters) == 1:
            raise InputError(f"{self.path}: {name!r} is the only adapter in it, remove the file instead")
        self._write(adapter for adapter in self._adapters.values() if adapter is not chosen)

    def verify(self, on_progress: Progress) -> Findings:
        """They were checked when the file was read."""
        return Findings(len(self._adapters), [], [])

    def _write(self, adapters: Iterable[Adapter]) -> None:
        write_adapters(adapters, self.path, self.format)
