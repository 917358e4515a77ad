"""What has adapters in it, a `.nemo`, a `.pt` or a store, seen as one kind of thing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.errors import InputError

Row = dict[str, Any]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Findings:
    """What a check found: how many adapters, what was mended, and what is wrong."""

    checked: int
    repaired: Sequence[str]
    problems: Sequence[str]


class Source(Protocol):
    """Adapters by name; in a store, the name is the user id."""

    format: str  # of the files that its adapters come in, if nobody asks for another one

    def rows(self, prefix: str, since: datetime | None) -> list[Row]:
        """One row per adapter whose name begins so, the same columns in each."""

    def get(self, name: str, version: int | None) -> Adapter:
        """One adapter. Raises InputError: there is none."""

    def take(self, adapter: Adapter, label: str, name: str | None, any_base: bool) -> str:
        """Put in an adapter, under a name or its own, and return that. `label` is where it comes from."""

    def rename(self, old: str, new: str) -> None:
        """Give an adapter another name."""

    def delete(self, name: str, version: int | None) -> None:
        """Remove an adapter."""

    def average(self, names: Sequence[str], target: str, weights: Sequence[float] | None) -> None:
        """Put in the weighted mean of several adapters."""

    def verify(self, on_progress: Progress) -> Findings:
        """Read and check all adapters."""

    def versions(self, name: str) -> list[Row]:
        """An adapter's versions with their times and checksums; none of what keeps no versions."""

    def erase(self, name: str) -> bool:
        """Remove everything of a person; whether there was anything. Raises InputError: this is for stores."""


class WithoutHistory:
    """Of a file and of a model: there is one of each adapter, and nobody knows since when."""

    path: Path

    def versions(self, name: str) -> list[Row]:
        """None are kept."""
        return []

    def erase(self, name: str) -> bool:
        """Raises InputError: what it says cannot be promised here."""
        raise InputError(f"{self.path}: --erase is for stores, where it removes everything of a person")

    def refuse_since(self, since: datetime | None) -> None:
        """Raises InputError: a time was asked for."""
        if since is not None:
            raise InputError(f"{self.path}: only stores know when an adapter was stored, leave out --since")

    def refuse_version(self, version: int | None) -> None:
        """Raises InputError: a version was asked for."""
        if version is not None:
            raise InputError(f"{self.path}: only stores keep versions, leave out --version")
