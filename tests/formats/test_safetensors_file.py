"""An adapter's safetensors file: there and back, as others see it, and thousands of damaged ones."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from nemo_ds2_adapters.adapters.adapter import Adapter, Info, loaded
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.safetensors_file import (
    MAX_HEADER,
    read,
    read_header,
    to_bytes,
)

FILES = 6000
SEED = 7
POINTS = ("encoder.adapter_points.0", "encoder.adapter_points.1")


@pytest.fixture
def adapter() -> Adapter:
    """Two points, several types of numbers, a counter without dimensions, and metadata in Korean."""
    weights = {
        point: {
            "module.0.weight": torch.randn(3, 4),
            "module.0.bias": torch.randn(3).half(),
            "module.3.weight": torch.randn(2, 3, dtype=torch.float64),
            "module.3.running": torch.randn(2).bfloat16(),
            "count": torch.tensor(5),
        }
        for point in POINTS
    }
    config = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [3], "layers": [0, 1], "norm": None}
    metadata = {"user_id": "홍길동", "wer": 0.25, "history": [{"epoch": 1}, {"epoch": 2}], "quoted": '"\\"'}
    info = Info("0" * 64, {"vocabulary": ["가", "나", '"']}, "2026-01-31T12:00:00+00:00", {"torch": "2"}, metadata)
    return Adapter("user_john", config, weights, "encoder", info)


def test_there_and_back(adapter: Adapter) -> None:
    data = to_bytes(adapter)
    for found in (loaded(read(kind(data), "a")) for kind in (bytes, bytearray, memoryview)):
        assert found == adapter and found.info == adapter.info
        assert [list(state) for state in found.weights.values()] == [list(s) for s in adapter.weights.values()]
        assert to_bytes(found) == data
    assert to_bytes(read(data, "a")) == data and read(data, "a").shapes == adapter.shapes
    for header in (read_header(data, "a"), read_header(data[: len(data) - 100], "a")):
        assert (header.name, header.module, header.config) == (adapter.name, adapter.module, adapter.config)
        assert (header.info, header.parameters, header.size) == (adapter.info, adapter.parameters, len(data))
    bare = replace(adapter, info=None, module="")
    assert read(to_bytes(bare), "a").info is None and loaded(read(to_bytes(bare), "a")) == bare


def test_any_safetensors_reader_opens_it(adapter: Adapter, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(to_bytes(adapter))
    with safe_open(path, "pt") as file:
        for point, state in adapter.weights.items():
            for key, value in state.items():
                assert torch.equal(file.get_tensor(f"{point}:{key}"), value)
        assert json.loads(file.metadata()["config"]) == adapter.config


def test_what_another_program_wrote(adapter: Adapter) -> None:
    """The metadata may come last, with spaces, and with characters escaped."""

    def reorder(header: dict[str, Any]) -> dict[str, Any]:
        return {
            **{key: value for key, value in header.items() if key != "__metadata__"},
            "__metadata__": header["__metadata__"],
        }

    data = changed(to_bytes(adapter), reorder)
    assert loaded(read(data, "a")) == adapter and read_header(data, "a").info == adapter.info


def changed(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The file with another header: a dictionary, or text."""
    end = 8 + int.from_bytes(data[:8], "little")
    result = change(json.loads(data[8:end]))
    text = (result if isinstance(result, str) else json.dumps(result)).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data[end:]


def with_metadata(**entries: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda header: {**header, "__metadata__": {**header["__metadata__"], **entries}}


def with_tensor(**entries: Any) -> Callable[[dict[str, Any]], Any]:
    key = f"{POINTS[0]}:module.0.weight"
    return lambda header: {**header, key: {**header[key], **entries}}


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no object": (lambda header: "[]", "not a JSON object"),
    "nested": (lambda header: "[" * 200_000, "not JSON"),
    "nested metadata": (with_metadata(info='{"a":' * 200_000 + "1" + "}" * 200_000), "not JSON"),
    "nested a little": (with_metadata(info='{"a":' * 60 + "1" + "}" * 60), "deeper than 50"),
    "digits": (lambda header: '{"a": ' + "9" * 5000 + "}", "not JSON"),
    "digits in a section": (with_metadata(config='{"a": ' + "9" * 5000 + "}"), "not JSON"),
    "later version": (with_metadata(format_version="2"), "later version: it says '2'"),
    "no metadata": (lambda header: {k: v for k, v in header.items() if k != "__metadata__"}, "not an adapter's file"),
    "metadata are a list": (lambda header: {**header, "__metadata__": []}, "not an adapter's file"),
    "no name": (with_metadata(name=5), "does not say all of name"),
    "no parameters": (with_metadata(parameters="-1"), "no proper numbers"),
    "other parameters": (with_metadata(parameters="1"), "and 1 parameters"),
    "other bytes": (with_metadata(bytes="1"), "it should have"),
    "half a character": (with_metadata(name="\ud800"), "no valid Unicode|is not text"),
    "half an escaped character": (with_metadata(info='{"metadata": {"a": "\\ud800"}}'), "no valid Unicode"),
    "config is a list": (with_metadata(config="[]"), "not a JSON object"),
    "no target": (with_metadata(config="{}"), "no proper entry _target_"),
    "enabled": (with_metadata(config='{"_target_": "a", "enabled": 1}'), "no proper entry _target_ or enabled"),
    "info without base": (with_metadata(base=None), "no proper sections info and base"),
    "info without fingerprint": (with_metadata(info="{}"), "no proper entry 'fingerprint'"),
    "no tensors": (lambda header: {"__metadata__": header["__metadata__"]}, "holds no weights"),
    "a tensor of text": (lambda header: {**header, "a:b": "c"}, "not described as expected"),
    "a tensor without point": (lambda header: {**header, ":b": {}}, "not described as expected"),
    "unknown numbers": (with_tensor(dtype="F4"), "not described as expected"),
    "shape": (with_tensor(shape=[3, "4"]), "has shape"),
    "shape of lists": (with_tensor(shape=[[0], 10**9]), "has shape"),
    "negative shape": (with_tensor(shape=[-3, -4]), "has shape"),
    "true shape": (with_tensor(shape=[True, 12]), "has shape"),
    "empty": (with_tensor(shape=[0, 10**30]), "has shape"),
    "large": (with_tensor(shape=[10**30, 10**30]), "not as many bytes"),
    "dimensions": (with_tensor(shape=[3, 4] + [1] * 1000), "no proper shape"),
    "offsets": (with_tensor(data_offsets=[0]), "no proper shape and place"),
    "overlap": (with_tensor(data_offsets=[0, 48]), "overlap, or leave gaps"),
    "gap": (with_tensor(data_offsets=[10**9, 10**9 + 48]), "overlap, or leave gaps"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_wrong_headers(adapter: Adapter, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    with pytest.raises(AdapterFileError, match=f"^its label: (.|\n)*({message})"):
        read(changed(to_bytes(adapter), change), "its label")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", (100).to_bytes(8, "little"), (MAX_HEADER + 1).to_bytes(8, "little") + b"{}", b"\xff" * 100],
)
def test_what_is_no_such_file(data: bytes) -> None:
    for call in (read, read_header):
        with pytest.raises(AdapterFileError):
            call(data, "a")


def test_what_cannot_be_written(adapter: Adapter) -> None:
    assert adapter.info is not None
    for metadata in ({"when": object()}, {"tensor": torch.ones(1)}, {"text": "\ud800"}, {1: 2}):
        with pytest.raises(InputError, match="metadata cannot be written"):
            to_bytes(replace(adapter, info=replace(adapter.info, metadata=metadata)))
    with pytest.raises(AdapterFileError, match="its header takes"):
        to_bytes(replace(adapter, info=replace(adapter.info, metadata={"text": "x" * MAX_HEADER})))
    for tensor, message in [
        (torch.tensor([1.0, float("nan")]), "not finite"),
        (torch.ones(2, dtype=torch.complex64), "complex64"),
        (torch.ones(0), "is empty"),
    ]:
        with pytest.raises(AdapterFileError, match=message):
            to_bytes(replace(adapter, weights={"encoder": {"module.0.weight": tensor}}))


@pytest.mark.parametrize("dtypes", [[torch.float32], [torch.float32, torch.float16], [torch.bfloat16]])
def test_weights_that_are_no_numbers(adapter: Adapter, dtypes: list[torch.dtype]) -> None:
    weights = {"encoder": {f"module.{i}.weight": torch.full((3,), 0.5, dtype=d) for i, d in enumerate(dtypes)}}
    data = to_bytes(replace(adapter, weights=weights))
    for value in (float("nan"), float("inf"), -float("inf")):
        bad, number = (torch.full((3,), v, dtype=dtypes[0]).view(torch.uint8).numpy().tobytes() for v in (value, 0.5))
        with pytest.raises(AdapterFileError, match=r"module\.0\.weight of adapter 'user_john' is not finite"):
            read(data.replace(number, bad), "a")


def test_damaged_files(adapter: Adapter) -> None:
    """Each is read or refused, and nothing else happens."""
    dice = random.Random(SEED)
    data = to_bytes(adapter)
    end = 8 + int.from_bytes(data[:8], "little")
    outcomes = {"read": 0, "refused": 0}
    for i in range(FILES):
        damaged = bytearray(data)
        for _ in range(dice.choice([1, 1, 2, 8])):
            place = dice.randrange(end if i % 4 else len(damaged))
            kind = dice.randrange(5)
            if kind == 0:
                damaged[place : place + 1] = bytes([dice.randrange(256)])
            elif kind == 1:  # what means something in JSON
                damaged[place : place + 1] = dice.choice(b'{}[]:,"\\0123456789.eE-+tfn').to_bytes(1, "big")
            elif kind == 2:
                del damaged[place : place + dice.choice([1, 4, 100])]
            elif kind == 3:
                damaged[place:place] = dice.randbytes(dice.choice([1, 4, 100]))
            else:  # a piece of it, once more
                start = dice.randrange(len(damaged))
                damaged[place:place] = damaged[start : start + dice.choice([1, 10, 200])]
        if i % 2:  # else hardly any would get past the header's length
            length = max(0, len(damaged) - (len(data) - end) - 8)
            damaged[:8] = length.to_bytes(8, "little")
        try:
            read_header(damaged, "a")
            read(damaged, "a")
            outcomes["read"] += 1
        except AdapterFileError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > FILES / 50, outcomes  # both happen, or the damage is too great or too small
