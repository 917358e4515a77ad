"""An adapter as a safetensors file: what stores keep. Reading it runs no pickle and no code of others.

The tensors are called `<point>:<weight>`. The file's metadata hold JSON texts: `adapter` (name, module, config) and,
of an adapter with info, `info` and `base`. Any safetensors reader opens it.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from nemo_ds2_adapters.adapters.adapter import Adapter, Info, check_finite
from nemo_ds2_adapters.errors import AdapterFileError, naming
from nemo_ds2_adapters.formats.plain import MAX_DEPTH, written_values

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = "1"
SUFFIX = ".safetensors"
OFFSETS = "data_offsets"
LENGTH = 8  # bytes in front of the header, which tell its length
MAX_HEADER = 4 * 2**20  # bytes
MAX_DIMENSIONS = 8
DTYPES = {  # names of torch's, and bytes of a number
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
CODES = {f"torch.{name}": code for code, (name, _) in DTYPES.items()}
INFO = {"fingerprint": str, "created": str, "versions": dict, "metadata": dict}  # fields of `Info` but the base
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # half of a character, unless its other half stands beside it

Bytes: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Header:
    """What a file says of its adapter; weights are not part of it."""

    name: str
    module: str
    config: Mapping[str, Any]
    info: Info | None
    parameters: int  # numbers in its floating-point tensors
    size: int  # of the whole file, bytes


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in a file."""

    point: str
    weight: str
    dtype: str  # a key of DTYPES
    shape: list[int]
    start: int  # bytes
    end: int


def to_bytes(adapter: Adapter) -> bytes:
    """The file that holds an adapter.

    Raises:
        InputError: its config or metadata are not plain values.
        AdapterFileError: a weight is not finite or of a kind that the format has not, or the header would be too long.
    """
    import torch

    check_finite(adapter.name, adapter.weights.values())
    tensors = {
        f"{point}:{key}": value.detach().cpu().contiguous()
        for point, state in adapter.weights.items()
        for key, value in state.items()
    }
    header: dict[str, Any] = {"__metadata__": _metadata(adapter)}
    for key, value in tensors.items():  # the order of the weights, which the file's content need not have
        header[key] = {"dtype": CODES.get(str(value.dtype)), "shape": list(value.shape)}
        if header[key]["dtype"] is None or not value.numel():
            raise AdapterFileError(f"weight {key} of adapter {adapter.name!r} is {value.dtype} {list(value.shape)}")
    widest_first = sorted(tensors, key=lambda key: -tensors[key].itemsize)  # each at a multiple of its size
    end = 0
    for key in widest_first:
        header[key][OFFSETS] = [end, end := end + tensors[key].nbytes]
    text = _json(header).encode()
    text += b" " * (-len(text) % LENGTH)
    if len(text) > MAX_HEADER:
        raise AdapterFileError(f"adapter {adapter.name!r}: its header takes {len(text)} bytes, at most {MAX_HEADER}")
    content = [tensors[key].reshape(-1).view(torch.uint8).numpy().data for key in widest_first]
    return b"".join([len(text).to_bytes(LENGTH, "little"), text, *content])


def read(source: Bytes | str | os.PathLike[str], label: str | None = None) -> Adapter:
    """Read and check a file.

    Args:
        source: its bytes, which the weights share if they can be written, or its path: then it is mapped into memory,
            and must not be changed as long as the adapter is in use.
        label: names it in messages; None for the path.

    Raises:
        AdapterFileError: the file cannot be read, or is damaged or hostile.
    """
    import torch

    data, label = _opened(source, label)
    if data.readonly:
        data = memoryview(bytearray(data))
    with naming(label):
        header, places = _parsed(data)
        if header.size != len(data):
            raise AdapterFileError(f"has {len(data)} bytes, by its header it should have {header.size}")
        weights: dict[str, dict[str, Tensor]] = {}
        for place in places:
            dtype = getattr(torch, DTYPES[place.dtype][0])
            tensor = torch.frombuffer(data, dtype=dtype, count=math.prod(place.shape), offset=place.start)
            weights.setdefault(place.point, {})[place.weight] = tensor.view(place.shape)
        dtypes = {tensor.dtype for state in weights.values() for tensor in state.values()}
        # One look at all numbers takes less time than one at each tensor.
        start = min(place.start for place in places)
        if len(dtypes) > 1 or not _is_finite(torch.frombuffer(data, dtype=dtypes.pop(), offset=start)):
            check_finite(header.name, weights.values())
        return Adapter(header.name, header.config, weights, header.module, header.info)


def read_header(source: Bytes | str | os.PathLike[str], label: str | None = None) -> Header:
    """What a file says of its adapter; the weights are not looked at.

    Args:
        source: its path, or its bytes up to `header_end` at least.
        label: names it in messages; None for the path.

    Raises:
        AdapterFileError: the file cannot be read, or its header is damaged or hostile.
    """
    data, label = _opened(source, label)
    with naming(label):
        return _parsed(data)[0]


def header_end(start: Bytes) -> int:
    """Where the weights begin, bytes, by the first 8 bytes of a file.

    Raises:
        AdapterFileError: there are not that many, or the header would be too long.
    """
    length = int.from_bytes(start[:LENGTH], "little")
    if len(start) < LENGTH or length > MAX_HEADER:
        raise AdapterFileError(f"is not a safetensors file, or its header is longer than {MAX_HEADER} bytes")
    return LENGTH + length


def _opened(source: Bytes | str | os.PathLike[str], label: str | None) -> tuple[memoryview, str]:
    if not isinstance(source, str | os.PathLike):
        return memoryview(source), label or "the adapter"
    try:
        with open(source, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)), label or str(source)
    except (OSError, ValueError) as error:  # ValueError: an empty file, of which nothing can be mapped
        raise AdapterFileError(f"{label or source}: cannot be read ({error})") from error


def _metadata(adapter: Adapter) -> dict[str, str]:
    about = {"name": adapter.name, "module": adapter.module, "config": written_values(adapter.config, "the config")}
    result = {"format_version": FORMAT_VERSION, "adapter": _json(about)}
    if adapter.info is not None:
        info = written_values({key: getattr(adapter.info, key) for key in INFO}, "the metadata")
        base = written_values(adapter.info.base, "what is known of the base")
        result |= {"info": _json(info), "base": _json(base)}
    return result


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _parsed(data: memoryview) -> tuple[Header, list[_Place]]:
    end = header_end(data)
    if end > len(data):
        raise AdapterFileError("is cut off within its header")
    header = _object(bytes(data[LENGTH:end]), "its header")
    metadata = header.pop("__metadata__", None)
    version = metadata.get("format_version") if isinstance(metadata, dict) else None
    if version != FORMAT_VERSION:
        raise AdapterFileError(
            f"is not an adapter's file, or of a later version: it says {version!r}, this version of "
            f"nemo_ds2_adapters reads {FORMAT_VERSION!r}"
        )
    places = [_place(key, value, end) for key, value in header.items()]
    for place in sorted(places, key=lambda place: place.start):
        if place.start != end:
            raise AdapterFileError("its tensors overlap, or leave gaps")
        end = place.end
    if not places:
        raise AdapterFileError("holds no weights")
    about = _object(metadata.get("adapter"), "its section adapter")
    name, module, config = (about.get(key) for key in ("name", "module", "config"))
    if not isinstance(name, str) or not isinstance(module, str):
        raise AdapterFileError("does not say the adapter's name and module")
    if not isinstance(config, dict) or not isinstance(config.get("_target_"), str):
        raise AdapterFileError(f"adapter {name!r} has no config, or one without _target_")
    if not isinstance(config.get("enabled", True), bool):
        raise AdapterFileError(f"the config of adapter {name!r} has an entry enabled that is not true or false")
    parameters = sum(math.prod(place.shape) for place in places if "float" in DTYPES[place.dtype][0])
    return Header(name, module, config, _info(metadata), parameters, size=end), places


def _object(text: Any, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
        _check_depth(value, MAX_DEPTH)
        if SURROGATE.search(text if isinstance(text, bytes) else text.encode()):
            _json(value).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise AdapterFileError(f"{what} is not JSON as expected ({type(error).__name__})") from error
    if not isinstance(value, dict):
        raise AdapterFileError(f"{what} is not a JSON object")
    return value


def _check_depth(value: Any, left: int) -> None:
    if isinstance(value, dict | list):
        if not left:
            raise ValueError("nested too deeply")
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, dict | list):
                _check_depth(item, left - 1)


@lru_cache(maxsize=64)  # many users' adapters say the same, and it is long
def _base(text: str) -> dict[str, Any]:
    return _object(text, "its section base")


def _info(metadata: dict[str, Any]) -> Info | None:
    if "info" not in metadata:
        return None
    values = _object(metadata["info"], "its section info")
    for key, kind in INFO.items():
        if not isinstance(values.get(key), kind):
            raise AdapterFileError(f"its section info has no proper entry {key!r}")
    if not isinstance(metadata.get("base"), str):
        raise AdapterFileError("does not describe the base it was made for")
    return Info(base=_base(metadata["base"]), **{key: values[key] for key in INFO})


def _place(key: str, value: Any, offset: int) -> _Place:
    point, _, weight = key.rpartition(":")
    dtype, shape, offsets = (value.get(k) if isinstance(value, dict) else None for k in ("dtype", "shape", OFFSETS))
    if not point or not weight or not isinstance(dtype, str) or dtype not in DTYPES:
        raise AdapterFileError(f"its tensor {key!r} is not described as expected")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2 or 0 in shape:
        raise AdapterFileError(f"its tensor {key!r} has no proper shape and place")
    if offsets[1] - offsets[0] != math.prod(shape) * DTYPES[dtype][1]:
        raise AdapterFileError(f"its tensor {key!r} has not as many bytes as {shape} numbers of type {dtype} take")
    return _Place(point, weight, dtype, shape, offset + offsets[0], offset + offsets[1])


def _are_sizes(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= MAX_DIMENSIONS
        and all(type(value) is int and 0 <= value < 2**48 for value in values)
    )


def _is_finite(numbers: Tensor) -> bool:
    if not numbers.is_floating_point():
        return True
    low, high = numbers.aminmax()  # both NaN if any number is
    return math.isfinite(low) and math.isfinite(high)
