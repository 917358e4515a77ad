"""The adapters in a `.pt` file."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from nemo_ds2_adapters.adapters.adapter import Adapter, mean, renamed
from nemo_ds2_adapters.cli.source import Findings, Progress, Row, WithoutHistory
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.file import write_adapters
from nemo_ds2_adapters.formats.reading import find_adapter, read_file


class FileSource(WithoutHistory):
    """A file in any of the three formats; it keeps its format, and nothing in it is executed."""

    def __init__(self, path: Path) -> None:
        """Read the whole file, compare its checksums, check its weights."""
        self.path = path
        self.format, self._adapters = read_file(path)

    def rows(self, prefix: str, since: datetime | None) -> list[Row]:
        """Name, module, type and parameters."""
        self.refuse_since(since)
        return [
            {"name": a.name, "module": a.module, "type": a.config["_target_"], "parameters": a.parameters}
            for a in self._adapters.values()
            if a.name.startswith(prefix)
        ]

    def get(self, name: str, version: int | None) -> Adapter:
        """One adapter."""
        self.refuse_version(version)
        return find_adapter(self._adapters, name, self.path)

    def take(self, adapter: Adapter, label: str, name: str | None, any_base: bool) -> str:
        """Raises InputError: a file says about all its adapters at once for which base and person they are."""
        raise InputError(f"{self.path}: adapters are imported into a .nemo or a store; a .pt is written by export")

    def rename(self, old: str, new: str) -> None:
        """Give an adapter another name; the order stays."""
        chosen = self.get(old, None)
        other = renamed(chosen, new, list(self._adapters))
        self._write(other if adapter is chosen else adapter for adapter in self._adapters.values())

    def delete(self, name: str, version: int | None) -> None:
        """Remove an adapter; the last one stays."""
        chosen = self.get(name, version)
        if len(self._adapters) == 1:
            raise InputError(f"{self.path}: {name!r} is the only adapter in it, remove the file instead")
        self._write(adapter for adapter in self._adapters.values() if adapter is not chosen)

    def average(self, names: Sequence[str], target: str, weights: Sequence[float] | None) -> None:
        """Add the weighted mean of several adapters."""
        combined = mean([self.get(name, None) for name in names], weights)
        self._write([*self._adapters.values(), renamed(combined, target, list(self._adapters))])

    def verify(self, on_progress: Progress) -> Findings:
        """How many adapters there are: they were checked when the file was read."""
        return Findings(len(self._adapters), [], [])

    def _write(self, adapters: Iterable[Adapter]) -> None:
        write_adapters(adapters, self.path, self.format)
