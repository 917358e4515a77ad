"""Reading the zip archives that `torch.save` writes; no declared size is believed before it is checked.

`torch.load` unpacks compressed entries, so that a small file can fill the memory, and does not compare checksums.
"""

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from nemo_ds2_adapters.errors import AdapterFileError, naming

MAX_PICKLE_BYTES = 16 * 2**20  # of the file's structure; the weights lie beside it
MAX_ENTRIES = 100_000
OLD_FORMAT = b"\x80"  # a bare pickle, or what torch wrote before 1.6

_DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, EOFError, OverflowError)


class TorchArchive:
    """An opened archive whose entries are uncompressed, unique, and no larger together than the file."""

    def __init__(self, zip_file: zipfile.ZipFile, size: int) -> None:
        self._zip = zip_file
        entries = zip_file.infolist()
        if len(entries) > MAX_ENTRIES:
            raise AdapterFileError(f"has {len(entries)} entries, at most {MAX_ENTRIES} are expected")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise AdapterFileError(f"entry {entry.filename!r} is compressed, torch.save never does that")
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) != len(entries) or sum(entry.file_size for entry in entries) > size:
            raise AdapterFileError("its entries overlap")
        pickles = [name for name in self._entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise AdapterFileError(f"{len(pickles)} entries are called data.pkl, one was expected")
        self._root = pickles[0].removesuffix("data.pkl")
        if self._root + "byteorder" in self._entries and self._read("byteorder", 16) != b"little":
            raise AdapterFileError("was saved on a big-endian machine, which is not supported")

    def structure(self) -> bytes:
        """The pickle that says what the file holds."""
        return self._read("data.pkl", MAX_PICKLE_BYTES)

    def storage(self, key: str, size: int) -> bytearray:
        """The numbers of one storage, which must have `size` bytes (AdapterFileError)."""
        entry = self._entries.get(f"{self._root}data/{key}")
        if entry is None or entry.file_size != size:
            have = "no such entry" if entry is None else f"{entry.file_size} bytes"
            raise AdapterFileError(f"declares {size} bytes of weights {key!r}, but holds {have}")
        content = bytearray(self._zip.read(entry))  # which compares the checksum
        if len(content) != size:
            raise AdapterFileError(f"the weights {key!r} are cut off")
        return content

    def _read(self, name: str, limit: int) -> bytes:
        entry = self._entries[self._root + name]
        if entry.file_size > limit:
            raise AdapterFileError(f"entry {name!r} has {entry.file_size} bytes, at most {limit} are expected")
        return self._zip.read(entry)


@contextmanager
def open_archive(path: str | os.PathLike[str]) -> Iterator[TorchArchive]:
    """Open a file that `torch.save` wrote. Raises AdapterFileError, from the block too: it is none, or damaged."""
    if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path):  # a number would be an open file's
        raise AdapterFileError(f"{path!r}: is not the path of a file")
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
            raise AdapterFileError(f"{path}: is a directory or a device, not a file")
        with open(path, "rb") as file, archive_in(file, str(path)) as archive:
            yield archive
    except OSError as error:
        raise AdapterFileError(f"{path}: cannot be read ({error.strerror})") from error


@contextmanager
def archive_in(file: BinaryIO, label: str) -> Iterator[TorchArchive]:
    """As `open_archive`, of an opened file, or bytes in memory; messages begin with `label`."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not size:
        raise AdapterFileError(f"{label}: is empty")
    if file.read(1) == OLD_FORMAT:
        raise AdapterFileError(
            f"{label}: is a bare pickle, which is not opened; if you trust it, load it with torch and save it "
            "again with torch.save of version 1.6 or later"
        )
    try:
        with naming(label), zipfile.ZipFile(file) as zip_file:
            yield TorchArchive(zip_file, size)
    except _DAMAGE as error:
        raise AdapterFileError(f"{label}: is not a file that torch.save wrote, or is damaged ({error})") from error
