"""The adapters in a `.pt` file."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from nemo_ds2_adapters.cli.source import Findings, Progress, Row, refuse_since, refuse_version
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.atomic import write_atomically
from nemo_ds2_adapters.formats.contents import FileContents, StoredAdapter
from nemo_ds2_adapters.formats.editing import averaged, contents_bytes, named, with_adapters
from nemo_ds2_adapters.formats.file import find_adapter
from nemo_ds2_adapters.formats.reading import read_adapter_file


class FileSource:
    """A file in any of the three formats; it keeps its format, and nothing in it is executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, prefix: str, since: datetime | None) -> list[Row]:
        """Name, module, type and parameters."""
        refuse_since(since, self.path)
        return [
            {"name": a.name, "module": a.prefix, "type": a.config["_target_"], "parameters": a.parameters}
            for a in self._read().adapters.values()
            if a.name.startswith(prefix)
        ]

    def contents(self, name: str, version: int | None) -> FileContents:
        """One adapter as a file of its own."""
        refuse_version(version, self.path)
        contents = self._read()
        return with_adapters(contents, [find_adapter(contents, name, self.path)])

    def take(self, contents: FileContents, label: str, name: str | None, any_base: bool) -> str:
        """Raises InputError: a file says about all its adapters at once for which base and person they are."""
        raise InputError(f"{self.path}: adapters are imported into a .nemo or a store; a .pt is written by export")

    def rename(self, old: str, new: str) -> None:
        """Give an adapter another name; the order stays."""
        contents = self._read()
        chosen = find_adapter(contents, old, self.path)
        renamed = named(chosen, new, list(contents.adapters))
        self._write(contents, [renamed if a is chosen else a for a in contents.adapters.values()])

    def copy(self, source: str, target: str) -> None:
        """Add a copy of an adapter under another name."""
        self.average([source], target, None)

    def delete(self, name: str, version: int | None) -> None:
        """Remove an adapter; the last one stays."""
        refuse_version(version, self.path)
        contents = self._read()
        chosen = find_adapter(contents, name, self.path)
        rest = [a for a in contents.adapters.values() if a is not chosen]
        if not rest:
            raise InputError(f"{self.path}: {name!r} is the only adapter in it, remove the file instead")
        self._write(contents, rest)

    def average(self, names: Sequence[str], target: str, weights: Sequence[float] | None) -> None:
        """Add the weighted mean of several adapters."""
        contents = self._read()
        chosen = [find_adapter(contents, name, self.path) for name in names]
        mean = named(averaged(chosen, target, weights), target, list(contents.adapters))
        self._write(contents, [*contents.adapters.values(), mean])

    def verify(self, on_progress: Progress) -> Findings:
        """Read the whole file, compare its checksums, check its weights."""
        try:
            return Findings(len(self._read().adapters), [], [])
        except AdapterFileError as error:
            return Findings(0, [], [str(error)])

    def _read(self) -> FileContents:
        return read_adapter_file(self.path)

    def _write(self, contents: FileContents, adapters: Sequence[StoredAdapter]) -> None:
        write_atomically(self.path, contents_bytes(with_adapters(contents, adapters)))
