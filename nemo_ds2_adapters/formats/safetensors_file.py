"""An adapter as a safetensors file: what stores keep. Reading it runs no pickle and no code of others.

The tensors are called `<point>:<weight>`. The file's metadata hold JSON texts: `adapter` (name, module, config), and
for an adapter with info, `info` and `base`. Any safetensors reader opens it.
"""

import json
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nemo_ds2_adapters.adapters.adapter import Adapter, Info, State, check_finite
from nemo_ds2_adapters.errors import AdapterFileError, InputError

FORMAT_VERSION = 1
SUFFIX = ".safetensors"
LENGTH = 8  # bytes in front of the header, which tell its length
MAX_HEADER = 4 * 2**20  # bytes
MAX_DEPTH = 50  # of nested lists and objects
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}

Source = bytes | bytearray | memoryview | str | os.PathLike[str]


@dataclass(frozen=True)
class Header:
    """What a file says without its weights."""

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
    dtype: torch.dtype
    shape: list[int]
    offset: int  # bytes


def to_bytes(adapter: Adapter) -> bytes:
    """The file that holds an adapter.

    Raises:
        InputError: its config or info are not plain values.
        AdapterFileError: a weight is not finite, or of a kind that the format has not; or too much is said about it.
    """
    for state in adapter.weights.values():
        check_finite(adapter.name, [state])
    tensors = {
        f"{point}:{key}": value.detach().cpu().contiguous()
        for point, state in adapter.weights.items()
        for key, value in state.items()
    }
    offset, offsets = 0, {}
    # The widest first, so that each lies at a multiple of its size; the header keeps the order of the weights.
    for key, value in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
        if value.dtype not in CODES or not value.numel():
            raise AdapterFileError(f"weight {key} of adapter {adapter.name!r} is {value.dtype} {list(value.shape)}")
        offsets[key] = [offset, offset + value.nbytes]
        offset += value.nbytes
    header: dict[str, Any] = {"__metadata__": _metadata(adapter)}
    for key, value in tensors.items():
        header[key] = {"dtype": CODES[value.dtype], "shape": list(value.shape), "data_offsets": offsets[key]}
    text = _json(header).encode()
    text += b" " * (-len(text) % LENGTH)
    if len(text) > MAX_HEADER:
        raise AdapterFileError(f"adapter {adapter.name!r}: its header takes {len(text)} bytes, at most {MAX_HEADER}")
    data = [tensors[key].reshape(-1).view(torch.uint8).numpy().data for key in offsets]
    return b"".join([len(text).to_bytes(LENGTH, "little"), text, *data])


def read(source: Source, label: str | None = None) -> Adapter:
    """Read and check a file.

    Args:
        source: its bytes, or its path; then the weights lie in the file, mapped into memory.
        label: names it in messages; None for the path.

    Returns:
        the adapter, whose weights share memory with a buffer that can be written.

    Raises:
        AdapterFileError: the file cannot be read, or is damaged or hostile.
    """
    data, label = _opened(source, label)
    if data.readonly:
        data = memoryview(bytearray(data))
    header, places = _parsed(data, label)
    if header.size != len(data):
        raise AdapterFileError(f"{label}: has {len(data)} bytes, by its header it should have {header.size}")
    weights: dict[str, dict[str, Tensor]] = {}
    for place in places:
        tensor = torch.frombuffer(data, dtype=place.dtype, count=math.prod(place.shape), offset=place.offset)
        weights.setdefault(place.point, {})[place.weight] = tensor.view(place.shape)
    _check_finite(data, places, header.name, weights, label)
    return Adapter(header.name, header.config, weights, header.module, header.info)


def read_header(source: Source, label: str | None = None) -> Header:
    """What a file says about its adapter; the weights are not looked at.

    Args:
        source: its path, or its bytes at least up to `header_end`.
        label: names it in messages; None for the path.

    Raises:
        AdapterFileError: the file cannot be read, or its header is damaged or hostile.
    """
    return _parsed(*_opened(source, label))[0]


def header_end(start: bytes | bytearray | memoryview, label: str) -> int:
    """Where the weights begin, bytes, by the first 8 bytes of a file.

    Raises:
        AdapterFileError: there are not that many, or the header would be too long.
    """
    length = int.from_bytes(bytes(memoryview(start)[:LENGTH]), "little")
    if len(memoryview(start)) < LENGTH or length > MAX_HEADER:
        raise AdapterFileError(f"{label}: is no safetensors file, or its header is longer than {MAX_HEADER} bytes")
    return LENGTH + length


def _opened(source: Source, label: str | None) -> tuple[memoryview, str]:
    if not isinstance(source, str | os.PathLike):
        return memoryview(source), label or "the adapter"
    try:
        with open(source, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)), label or str(source)
    except (OSError, ValueError) as error:  # ValueError: nothing can be mapped of an empty file
        raise AdapterFileError(f"{label or source}: cannot be read ({error})") from error


def _metadata(adapter: Adapter) -> dict[str, str]:
    about = {"name": adapter.name, "module": adapter.module, "config": adapter.config}
    result = {"format_version": str(FORMAT_VERSION), "adapter": _json(about)}
    if adapter.info is not None:
        info = dict(vars(adapter.info))
        result |= {"base": _json(info.pop("base")), "info": _json(info)}
    return result


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
        text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"the adapter's config or metadata cannot be written: {error}") from error
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} is not a plain value")


def _parsed(data: memoryview, label: str) -> tuple[Header, list[_Place]]:
    end = header_end(data, label)
    if end > len(data):
        raise AdapterFileError(f"{label}: is cut off within its header")
    try:
        header = _object(bytes(data[LENGTH:end]), "its header")
        metadata = header.pop("__metadata__", None)
        if not isinstance(metadata, dict) or metadata.get("format_version") != str(FORMAT_VERSION):
            version = metadata.get("format_version") if isinstance(metadata, dict) else None
            raise AdapterFileError(
                f"is not an adapter's file, or of a later version ({version!r}, this version of nemo_ds2_adapters "
                f"reads {FORMAT_VERSION}): update the package"
            )
        places = [_place(key, value, end) for key, value in header.items()]
        size = _checked_size(places, end)
        about = _object(metadata.get("adapter"), "its section adapter")
        name, module, config = (about.get(key) for key in ("name", "module", "config"))
        if not isinstance(name, str) or not isinstance(module, str):
            raise AdapterFileError("does not say the adapter's name and module")
        if not isinstance(config, dict) or not isinstance(config.get("_target_"), str):
            raise AdapterFileError(f"adapter {name!r} has no config, or one without _target_")
        if not isinstance(config.get("enabled", True), bool):
            raise AdapterFileError(f"the config of adapter {name!r} has an entry enabled that is not true or false")
        parameters = sum(math.prod(place.shape) for place in places if place.dtype.is_floating_point)
        return Header(name, module, config, _info(metadata), parameters, size), places
    except AdapterFileError as error:
        raise AdapterFileError(f"{label}: {error}") from error


def _object(text: Any, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
        _check_depth(value, MAX_DEPTH)
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


@lru_cache(maxsize=64)  # of many users' adapters it is the same text, and long
def _base(text: str) -> dict[str, Any]:
    return _object(text, "its section base")


def _info(metadata: dict[str, Any]) -> Info | None:
    if "info" not in metadata:
        return None
    values = _object(metadata["info"], "its section info")
    kinds = {"fingerprint": str, "created": str, "versions": dict, "metadata": dict}
    for key, kind in kinds.items():
        if not isinstance(values.get(key), kind):
            raise AdapterFileError(f"its section info has no proper entry {key!r}")
    if not isinstance(metadata.get("base"), str):
        raise AdapterFileError("does not describe the base it was made for")
    return Info(base=_base(metadata["base"]), **{key: values[key] for key in kinds})


def _place(key: str, value: Any, end: int) -> _Place:
    point, _, weight = key.rpartition(":")
    entry = value if isinstance(value, dict) else {}
    dtype, shape, offsets = DTYPES.get(str(entry.get("dtype"))), entry.get("shape"), entry.get("data_offsets")
    if not point or not weight or dtype is None or not _are_sizes(shape) or not _are_sizes(offsets):
        raise AdapterFileError(f"its tensor {key!r} is not described as expected")
    if len(offsets) != 2 or not math.prod(shape) or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise AdapterFileError(f"its tensor {key!r} has {offsets} for {shape} numbers of {dtype.itemsize} bytes")
    return _Place(point, weight, dtype, shape, end + offsets[0])


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and len(values) <= 8 and all(type(v) is int and 0 <= v < 2**40 for v in values)


def _checked_size(places: list[_Place], end: int) -> int:
    """The file's size, if the tensors fill it without gaps and overlaps."""
    if not places:
        raise AdapterFileError("holds no weights")
    for place in sorted(places, key=lambda place: place.offset):
        if place.offset != end:
            raise AdapterFileError("its tensors overlap, or leave gaps")
        end += math.prod(place.shape) * place.dtype.itemsize
    return end


def _check_finite(data: memoryview, places: list[_Place], name: str, weights: Mapping[str, State], label: str) -> None:
    start = min(place.offset for place in places)
    (dtype, *others) = {place.dtype for place in places}
    if not others and dtype.is_floating_point:  # then one look at all of them is enough
        low, high = torch.aminmax(torch.frombuffer(data, dtype=dtype, offset=start))  # both NaN if any number is
        if math.isfinite(low) and math.isfinite(high):
            return
    try:
        check_finite(name, list(weights.values()))
    except AdapterFileError as error:
        raise AdapterFileError(f"{label}: {error}") from error
