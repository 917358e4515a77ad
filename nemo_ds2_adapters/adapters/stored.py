"""Weights as bytes: who reads, moves or averages adapters, but runs none, need not import PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

from nemo_ds2_adapters.errors import AdapterFileError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Bytes: TypeAlias = bytes | bytearray | memoryview
ITEM_SIZES = {  # of torch's types, by name: bytes of a number
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


@dataclass(frozen=True, eq=False)
class Storage:
    """The numbers behind one or more tensors."""

    content: Bytes
    dtype: str  # a key of ITEM_SIZES

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return ITEM_SIZES[self.dtype]

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return len(self.content) // self.itemsize

    def numbers(self) -> Tensor:
        """All of them, in the memory of the bytes, if these can be written."""
        import torch

        dtype = getattr(torch, self.dtype)
        content = bytearray(self.content) if memoryview(self.content).readonly else self.content
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """Where the numbers of a tensor lie, checked to be there."""

    storage: Storage
    offset: int  # numbers; and so are the strides
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of_bytes(cls, content: Bytes, dtype: str, shape: tuple[int, ...]) -> StoredTensor:
        """Numbers that lie one after the other."""
        return cls(Storage(content, dtype), 0, shape, _dense_stride(shape))

    @classmethod
    def of_array(cls, numbers: np.ndarray, dtype: str) -> StoredTensor:
        """An array's numbers in the type that they are next to; 16 bits by way of float32, as PyTorch does it."""
        import numpy as np

        if ITEM_SIZES[dtype] == 2:
            numbers = numbers.astype(np.float32)
        if dtype == "bfloat16":  # the upper half of a float32, the even one of two that are as near
            bits = numbers.view(np.uint32)
            numbers = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        content = numbers.astype(_numpy_type(dtype)).tobytes()
        return cls.of_bytes(content, dtype, numbers.shape)

    @property
    def dtype(self) -> str:
        """PyTorch's name of its type."""
        return self.storage.dtype

    def numel(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    def is_floating_point(self) -> bool:
        """Whether they are fractions."""
        return "float" in self.dtype

    def is_finite(self) -> bool:
        """Whether none is NaN or infinite."""
        import numpy as np

        return not self.is_floating_point() or bool(np.isfinite(self.array()).all())

    def content(self) -> Bytes:
        """Its numbers one after the other."""
        return _dense(self._bits())

    def array(self) -> np.ndarray:
        """Its numbers in their type, and their memory; those of bfloat16, which NumPy lacks, as float32."""
        import numpy as np

        bits = self._bits()
        return (bits.astype(np.uint32) << 16).view(np.float32) if self.dtype == "bfloat16" else bits

    def tensor(self) -> Tensor:
        """It itself."""
        return self.storage.numbers().as_strided(self.shape, self.stride, self.offset)

    def _bits(self) -> np.ndarray:
        import numpy as np

        numbers = np.frombuffer(self.storage.content, _numpy_type(self.dtype))[self.offset :]
        if self.stride == _dense_stride(self.shape):  # as nearly always, and done faster
            return numbers[: self.numel()].reshape(self.shape)
        strides = [step * self.storage.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(numbers, self.shape, strides, writeable=False)


def stored(value: Any) -> StoredTensor:
    """A weight as bytes, which it shares with a tensor in main memory. Raises AdapterFileError: of an unusual type."""
    if isinstance(value, StoredTensor):
        return value
    import torch

    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in ITEM_SIZES:
        raise AdapterFileError(f"is {dtype}, which no file of adapters holds")
    numbers = value.detach().cpu()
    bits = numbers.view(torch.int16) if dtype == "bfloat16" else numbers  # which NumPy lacks
    return StoredTensor.of_bytes(_dense(bits.numpy()), dtype, tuple(value.shape))


@lru_cache(maxsize=256)  # adapters of one architecture have the same few
def _dense_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def _dense(numbers: np.ndarray) -> memoryview:
    """The bytes of an array's numbers, one after the other."""
    import numpy as np

    return np.ascontiguousarray(numbers).reshape(-1).view(np.uint8).data


def _numpy_type(dtype: str) -> str:
    return "uint16" if dtype == "bfloat16" else dtype
