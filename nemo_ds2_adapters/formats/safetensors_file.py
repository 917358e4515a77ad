"""An adapter as a safetensors file: what stores keep. Reading it runs no pickle and no code of others.

The tensors are called `<point>:<weight>`. The file's metadata are `name`, `module`, `parameters`, `bytes` (of all
tensors), and JSON texts: `config` and, of an adapter with info, `info` and `base`. Any safetensors reader opens it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from nemo_ds2_adapters.adapters.adapter import Adapter, Info, check_finite
from nemo_ds2_adapters.adapters.stored import ITEM_SIZES, Bytes, StoredTensor, stored
from nemo_ds2_adapters.errors import AdapterFileError, naming
from nemo_ds2_adapters.formats.plain import plain_values, written_values

FORMAT_VERSION = "1"
SUFFIX = ".safetensors"
METADATA, OFFSETS = "__metadata__", "data_offsets"
LENGTH = 8  # bytes in front of the header, which tell its length
MAX_HEADER = 4 * 2**20  # bytes
MAX_DIMENSIONS = 8
DTYPES = {  # names of torch's
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
CODES = {name: code for code, name in DTYPES.items()}
INFO = {"fingerprint": str, "created": str, "versions": dict, "metadata": dict}  # fields of `Info` but the base
REQUIRED = ("name", "module", "parameters", "bytes", "config")
NUMBER = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True)
class Header:
    """What a file says of its adapter; weights are not part of it."""

    name: str
    module: str
    config: Mapping[str, Any]
    info: Info | None
    parameters: int  # numbers in its floating-point tensors
    size: int  # of the whole file, bytes


class _Place(NamedTuple):
    """Where a tensor lies in a file."""

    start: int  # bytes
    end: int
    point: str
    weight: str
    dtype: str  # a key of DTYPES
    shape: list[int]


def to_bytes(adapter: Adapter) -> bytes:
    """The file that holds an adapter.

    Raises InputError: its config or metadata are not plain values. AdapterFileError: a weight is not finite or of a
    kind that the format has not, or the header would be too long.
    """
    tensors: dict[str, StoredTensor] = {}
    for point, state in adapter.weights.items():
        for key, value in state.items():
            with naming(f"weight {key} of adapter {adapter.name!r}"):
                tensors[f"{point}:{key}"] = weight = stored(value)
                if not weight.numel():
                    raise AdapterFileError(f"is empty, {list(weight.shape)}")
    check_finite(adapter.name, adapter.weights.values())
    content = {key: weight.content() for key, weight in tensors.items()}
    header: dict[str, Any] = {METADATA: _metadata(adapter, sum(map(len, content.values())))}
    for key, weight in tensors.items():  # the order of the weights, which the file's content need not have
        header[key] = {"dtype": CODES[weight.dtype], "shape": list(weight.shape)}
    widest_first = sorted(tensors, key=lambda key: -tensors[key].storage.itemsize)  # each at a multiple of its size
    end = 0
    for key in widest_first:
        header[key][OFFSETS] = [end, end := end + len(content[key])]
    text = _json(header).encode()
    text += b" " * (-len(text) % LENGTH)
    if len(text) > MAX_HEADER:
        raise AdapterFileError(f"adapter {adapter.name!r}: its header takes {len(text)} bytes, at most {MAX_HEADER}")
    return b"".join([len(text).to_bytes(LENGTH, "little"), text, *(content[key] for key in widest_first)])


def read(data: Bytes, label: str) -> Adapter:
    """The adapter of a file, checked (AdapterFileError), its weights `StoredTensor`s in the memory of the bytes."""
    data = memoryview(data)
    with naming(label):
        text, start = _header_text(data)
        tensors = _json_object(text, "its header")
        header = _header(tensors.pop(METADATA, None), start)
        places = [_place(key, value, start) for key, value in tensors.items()]
        _check_places(places, start, header, len(data))
        weights: dict[str, dict[str, Any]] = {}
        for place in places:
            weight = StoredTensor.of_bytes(data[place.start : place.end], DTYPES[place.dtype], tuple(place.shape))
            weights.setdefault(place.point, {})[place.weight] = weight
        check_finite(header.name, weights.values())
    return Adapter(header.name, header.config, weights, header.module, header.info)


def read_header(data: Bytes, label: str) -> Header:
    """What a file says of its adapter, by its bytes up to `header_end` at least; the weights are not looked at."""
    with naming(label):
        text, start = _header_text(memoryview(data))
        return _header(_json_object(text, "its header").get(METADATA), start)


def header_end(start: Bytes) -> int:
    """Where the weights begin, bytes, by the first 8 bytes of a file. Raises AdapterFileError: that cannot be."""
    length = int.from_bytes(start[:LENGTH], "little")
    if len(start) < LENGTH or length > MAX_HEADER:
        raise AdapterFileError(f"is not a safetensors file, or its header is longer than {MAX_HEADER} bytes")
    return LENGTH + length


def _metadata(adapter: Adapter, bytes_of_weights: int) -> dict[str, str]:
    return {
        "format_version": FORMAT_VERSION,
        "name": adapter.name,
        "module": adapter.module,
        "parameters": str(adapter.parameters),
        "bytes": str(bytes_of_weights),
        "config": _json(written_values(adapter.config, "the config")),
        **_info_texts(adapter.info),
    }


def _info_texts(info: Info | None) -> dict[str, str]:
    if info is None:
        return {}
    about = {key: getattr(info, key) for key in INFO}
    return {
        "info": _json(written_values(about, "the metadata")),
        "base": _json(written_values(info.base, "what is known of the base")),
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _header_text(data: memoryview) -> tuple[str, int]:
    """The header, and where the weights begin."""
    end = header_end(data)
    if end > len(data):
        raise AdapterFileError("is cut off within its header")
    try:
        return str(data[LENGTH:end], "utf-8"), end
    except UnicodeDecodeError as error:
        raise AdapterFileError("its header is not text") from error


def _header(metadata: Any, start: int) -> Header:
    version = metadata.get("format_version") if type(metadata) is dict else None
    if version != FORMAT_VERSION:
        raise AdapterFileError(
            f"is not an adapter's file, or of a later version: it says {version!r}, this version of "
            f"nemo_ds2_adapters reads {FORMAT_VERSION!r}"
        )
    plain_values([metadata.get("name"), metadata.get("module")])  # which are Unicode text
    if any(type(metadata.get(key)) is not str for key in REQUIRED):
        raise AdapterFileError(f"does not say all of {', '.join(REQUIRED)}")
    parameters, length = (int(t) if NUMBER.fullmatch(t) else -1 for t in (metadata["parameters"], metadata["bytes"]))
    name, config = metadata["name"], _common(metadata["config"])
    if parameters < 0 or length < 0:
        raise AdapterFileError("says no proper numbers of parameters and bytes")
    if type(config.get("_target_")) is not str or type(config.get("enabled", True)) is not bool:
        raise AdapterFileError(f"the config of adapter {name!r} has no proper entry _target_ or enabled")
    return Header(name, metadata["module"], config, _info(metadata), parameters, start + length)


def _check_places(places: list[_Place], start: int, header: Header, size: int) -> None:
    if not places:
        raise AdapterFileError("holds no weights")
    for place in sorted(places):
        if place.start != start:
            raise AdapterFileError("its tensors overlap, or leave gaps")
        start = place.end
    parameters = sum(math.prod(place.shape) for place in places if "float" in DTYPES[place.dtype])
    if (start, header.size, header.parameters) != (size, size, parameters):
        raise AdapterFileError(
            f"has {size} bytes, and tensors of {parameters} parameters up to byte {start}; by its header it should "
            f"have {header.size} bytes, and {header.parameters} parameters"
        )


def _json_object(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterFileError(f"{what} is not JSON ({type(error).__name__})") from error
    if type(value) is not dict:
        raise AdapterFileError(f"{what} is not a JSON object")
    return value


def _section(text: str, what: str) -> dict[str, Any]:
    with naming(what):
        return plain_values(_json_object(text, "it"))


@lru_cache(maxsize=256)  # of config and base many adapters say the same
def _common(text: str) -> dict[str, Any]:
    return _section(text, "its section config or base")


def _info(metadata: dict[str, Any]) -> Info | None:
    if "info" not in metadata and "base" not in metadata:
        return None
    if type(metadata.get("info")) is not str or type(metadata.get("base")) is not str:
        raise AdapterFileError("has no proper sections info and base")
    values = _section(metadata["info"], "its section info")
    for key, kind in INFO.items():
        if type(values.get(key)) is not kind:
            raise AdapterFileError(f"its section info has no proper entry {key!r}")
    return Info(base=_common(metadata["base"]), **{key: values[key] for key in INFO})


def _place(key: str, value: Any, offset: int) -> _Place:
    point, _, weight = key.rpartition(":")
    dtype, shape, offsets = (value.get(k) for k in ("dtype", "shape", OFFSETS)) if type(value) is dict else [None] * 3
    if not point or not weight or not key.isprintable() or type(dtype) is not str or dtype not in DTYPES:
        raise AdapterFileError(f"its tensor {key!r} is not described as expected")
    if type(shape) is not list or type(offsets) is not list or len(offsets) != 2 or len(shape) > MAX_DIMENSIONS:
        raise AdapterFileError(f"its tensor {key!r} has no proper shape and place")
    if not {*map(type, shape), *map(type, offsets)} <= {int} or min(shape, default=1) < 1 or offsets[0] < 0:
        raise AdapterFileError(f"its tensor {key!r} has shape {shape} and place {offsets}")
    if offsets[1] - offsets[0] != math.prod(shape) * ITEM_SIZES[DTYPES[dtype]]:
        raise AdapterFileError(f"its tensor {key!r} has not as many bytes as {shape} numbers of type {dtype} take")
    return _Place(offset + offsets[0], offset + offsets[1], point, weight, dtype, shape)
