"""Writing what `torch.save` writes, without PyTorch: a zip archive with a pickle, and each weight's numbers beside it.

`torch.load(weights_only=True)` of any version since 1.6 reads it, and so does `unpickle`.
"""

import io
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from nemo_ds2_adapters.adapters.stored import Bytes, StoredTensor, stored
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.safe_pickle.unpickle import REBUILD_TENSOR, STORAGES, ClassName

ROOT = "archive"
ALIGNMENT = 64  # bytes, of the numbers in the file: as torch has it, for who maps the file
LOCAL_HEADER = 34  # bytes in front of an entry, besides its name and its padding
STORAGE_CLASSES = {dtype: ClassName(path) for path, dtype in STORAGES.items()}


def saved(content: Mapping[str, Any]) -> bytes:
    """The file that holds plain values and weights, `Tensor`s or `StoredTensor`s.

    Raises InputError: a number of hundreds of digits. AdapterFileError: weights of an unusual type.
    """
    weights: list[StoredTensor] = []
    program = b"".join([pickle.PROTO, b"\2", *_pickled(content, weights), pickle.STOP])
    entries: dict[str, Bytes] = {"data.pkl": program, "byteorder": b"little"}
    entries |= {f"data/{key}": weight.storage.content for key, weight in enumerate(weights)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in {**entries, "version": b"3\n"}.items():
            entry = zipfile.ZipInfo(f"{ROOT}/{name}")
            padding = -(file.tell() + LOCAL_HEADER + len(entry.filename)) % ALIGNMENT
            entry.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
            archive.writestr(entry, data)
    return file.getvalue()


def _pickled(value: Any, weights: list[StoredTensor]) -> Iterator[bytes]:
    """The instructions that make a value; its weights are put beside those that there are."""
    match value:
        case None:
            yield pickle.NONE
        case bool():
            yield pickle.NEWTRUE if value else pickle.NEWFALSE
        case int():
            number = pickle.encode_long(value)
            if len(number) > 255:
                raise InputError("holds a whole number of more than 600 digits: write it as text")
            yield pickle.LONG1 + bytes([len(number)]) + number
        case float():
            yield pickle.BINFLOAT + struct.pack(">d", value)
        case str():
            text = value.encode()
            yield pickle.BINUNICODE + struct.pack("<I", len(text)) + text
        case ClassName():
            module, _, name = value.path.rpartition(".")
            yield pickle.GLOBAL + f"{module}\n{name}\n".encode()
        case Mapping():
            yield pickle.EMPTY_DICT + pickle.MARK
            for pair in value.items():
                for item in pair:
                    yield from _pickled(item, weights)
            yield pickle.SETITEMS
        case list() | tuple():
            yield pickle.EMPTY_LIST * isinstance(value, list) + pickle.MARK
            for item in value:
                yield from _pickled(item, weights)
            yield pickle.APPENDS if isinstance(value, list) else pickle.TUPLE
        case _:
            yield from _pickled_weight(stored(value), weights)


def _pickled_weight(weight: StoredTensor, weights: list[StoredTensor]) -> Iterator[bytes]:
    """A call with storage, offset, shape, strides, whether it has a gradient, and hooks; then it is rebuilt."""
    weight = StoredTensor.of_bytes(weight.content(), weight.dtype, weight.shape)
    storage = ("storage", STORAGE_CLASSES[weight.dtype], str(len(weights)), "cpu", weight.numel())
    weights.append(weight)
    yield from _pickled(ClassName(REBUILD_TENSOR[0]), weights)
    yield pickle.MARK
    yield from _pickled(storage, weights)
    yield pickle.BINPERSID
    for argument in (weight.offset, weight.shape, weight.stride, False, ClassName("collections.OrderedDict"), ()):
        yield from _pickled(argument, weights)
    yield pickle.REDUCE + pickle.TUPLE + pickle.REDUCE
