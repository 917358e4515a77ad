"""Files written without PyTorch are those that `torch.save` writes: whoever reads them finds the same."""

import io
import math
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nemo_ds2_adapters.adapters.adapter import Adapter, loaded, mean
from nemo_ds2_adapters.adapters.stored import ITEM_SIZES, StoredTensor, stored
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.file import write_adapters
from nemo_ds2_adapters.formats.reading import NEMO, read_values
from nemo_ds2_adapters.formats.safe_pickle.saving import ALIGNMENT, saved

FRACTIONS = [name for name in ITEM_SIZES if "float" in name]
LEAVES = st.none() | st.booleans() | st.integers(-(2**2000), 2**2000) | st.floats() | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@st.composite
def tensors(draw: st.DrawFn, names: Sequence[str] = tuple(ITEM_SIZES)) -> torch.Tensor:
    """Of any type and shape, dense or a part of a larger one, with any bits."""
    name = draw(st.sampled_from(names))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    count = math.prod(shape) * 2
    bits = draw(st.binary(min_size=count * ITEM_SIZES[name], max_size=count * ITEM_SIZES[name]))
    if name == "bool":
        bits = bytes(bit & 1 for bit in bits)
    numbers = torch.frombuffer(bytearray(bits or b"\0" * 8), dtype=getattr(torch, name))[:count].reshape(*shape, 2)
    kind = draw(st.sampled_from(["dense", "part", "turned"]))
    part = numbers[..., 0]
    return part.contiguous() if kind == "dense" else part.T if kind == "turned" and part.ndim == 2 else part


def same(one: Any, other: Any) -> bool:
    """Equal in value and type, tensors and fractions bit for bit, dictionaries in their order too."""
    if isinstance(one, StoredTensor):
        one = one.tensor()
    if isinstance(other, StoredTensor):
        other = other.tensor()
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape and one.is_contiguous()
        return alike and stored(one).content() == stored(other).content()
    if isinstance(one, dict):
        return isinstance(other, dict) and same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return isinstance(other, float) and (one == other or (one != one and other != other))
    return type(one) is type(other) and one == other


def through_torch(content: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@given(st.dictionaries(st.text(), VALUES, max_size=3), st.dictionaries(st.text(), tensors(), max_size=3))
def test_every_reader_finds_what_was_written(values: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    content = {"values": values, "adapter": [weights]}
    as_bytes = {"values": values, "adapter": [{key: stored(value) for key, value in weights.items()}]}
    data = saved(content)
    assert saved(as_bytes) == data
    assert same(torch.load(io.BytesIO(data), weights_only=True), content)


@given(st.dictionaries(st.text(), VALUES, max_size=3), st.dictionaries(st.text(), tensors(), max_size=3))
def test_our_reader_finds_what_it_finds_in_a_file_of_torch(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any], weights: dict[str, torch.Tensor]
) -> None:
    content = {"values": values, "adapter": OrderedDict(weights)}
    ours, theirs = (tmp_path_factory.getbasetemp() / name for name in ("ours.pt", "theirs.pt"))
    ours.write_bytes(saved(content))
    theirs.write_bytes(through_torch({**content, "adapter": {k: v.contiguous() for k, v in weights.items()}}))
    assert same(read_values(ours), read_values(theirs))


def test_a_mapped_file(tmp_path: Path) -> None:
    weights = {"a": torch.randn(3, 5), "b": torch.randn(7).double()}
    path = tmp_path / "a.pt"
    path.write_bytes(saved(weights))
    assert same(torch.load(path, weights_only=True, mmap=True), weights)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            header = path.read_bytes()[entry.header_offset :][:30]
            assert (entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))) % ALIGNMENT == 0


def test_what_no_reader_would_take(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(InputError, match="600 digits"):
        saved({"metadata": 2**2040})
    with pytest.raises(AdapterFileError, match=r"a\.pt: is complex64, which"):
        write_adapters([Adapter("a", {}, {"p": {"w": torch.ones(2, dtype=torch.complex64)}})], path, NEMO)
    assert not list(tmp_path.iterdir())


@given(
    st.lists(tensors(FRACTIONS).filter(lambda value: bool(value.isfinite().all())), min_size=2, max_size=2),
    st.lists(st.floats(0.125, 8), min_size=2, max_size=2),
)
def test_means_are_the_same_with_and_without_pytorch(weights: list[torch.Tensor], shares: list[float]) -> None:
    one, other = weights[0], weights[0] * 0.5
    adapters = [Adapter("a", {"_target_": "x"}, {"p": {"w": value.contiguous()}}) for value in (one, other)]
    as_bytes: Any = [Adapter("a", {"_target_": "x"}, {"p": {"w": stored(value)}}) for value in (one, other)]
    expected, found = mean(adapters, shares), loaded(mean(as_bytes, shares))
    assert same(found.weights, expected.weights)
