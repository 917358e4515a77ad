"""The files that torch wrote before 1.6: pickles one after the other, then the numbers."""

import mmap
import struct
from pathlib import Path
from typing import Any

from nemo_ds2_adapters.errors import AdapterFileError, naming
from nemo_ds2_adapters.formats.safe_pickle.unpickle import Names, unpickle

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001


def read_old_format(path: Path, names: Names) -> Any:
    """What such a file holds, as of `unpickle`.

    Raises:
        AdapterFileError: the file is a pickle of something else, damaged or hostile.
    """
    with naming(path), path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _OldFile(content, names).content()


class _OldFile:
    def __init__(self, file: mmap.mmap, names: Names) -> None:
        self._file = file
        self._free = len(file)  # bytes that the storages may still declare
        self._names = names
        self._storages: dict[str, bytearray] = {}

    def content(self) -> Any:
        if (self._next(), self._next()) != (MAGIC_NUMBER, PROTOCOL_VERSION):
            raise AdapterFileError("is a bare pickle, not a file that torch.save wrote")
        machine, content, keys = (self._next() for _ in range(3))
        if not isinstance(machine, dict) or not machine.get("little_endian"):
            raise AdapterFileError("was saved on a big-endian machine, which is not supported")
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise AdapterFileError("does not list its weights")
        for key in keys:
            self._fill(key)
        return content

    def _next(self) -> Any:
        return unpickle(self._file, self._reserve, self._names)

    def _reserve(self, key: str, size: int) -> bytearray:
        """Memory for a storage whose numbers come later."""
        self._free -= size
        if self._free < 0:
            raise AdapterFileError("declares more weights than it holds")
        return self._storages.setdefault(key, bytearray(size))

    def _fill(self, key: str) -> None:
        if key not in self._storages:
            raise AdapterFileError(f"holds weights {key!r} that it does not declare")
        storage = self._storages.pop(key)
        header = self._file.read(8)
        numbers = self._file.read(len(storage))
        if len(header) < 8 or len(numbers) < len(storage):
            raise AdapterFileError(f"the weights {key!r} are cut off")
        storage[:] = numbers
        (count,) = struct.unpack("<q", header)
        if count and len(storage) % count:
            raise AdapterFileError(f"declares weights {key!r} twice, differently")
