"""Tensors of a file that `torch.save` wrote: who does not compute with them need not import PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Storage:
    """The numbers behind one or more tensors."""

    content: bytearray
    dtype: str  # torch's name
    itemsize: int  # bytes

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return len(self.content) // self.itemsize

    @cached_property
    def numbers(self) -> Tensor:
        """All of them; the tensors share their memory."""
        import torch

        dtype = getattr(torch, self.dtype)
        return torch.frombuffer(self.content, dtype=dtype) if self.content else torch.empty(0, dtype=dtype)


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """Where the numbers of a tensor lie, checked to be there, with what a description of an adapter asks for."""

    storage: Storage
    offset: int  # numbers; and so are the strides
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def numel(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    def is_floating_point(self) -> bool:
        """Whether they are fractions."""
        return "float" in self.storage.dtype

    def is_finite(self) -> bool:
        """Whether none is NaN or infinite."""
        import numpy as np

        if not self.is_floating_point() or not self.numel():
            return True
        numbers = np.frombuffer(self.storage.content, numpy_type(self.storage.dtype))[self.offset :]
        strides = [step * self.storage.itemsize for step in self.stride]
        return are_finite(np.lib.stride_tricks.as_strided(numbers, self.shape, strides), self.storage.dtype)

    def tensor(self) -> Tensor:
        """It itself."""
        return self.storage.numbers.as_strided(self.shape, self.stride, self.offset)


def numpy_type(dtype: str) -> str:
    """As what numpy can look at numbers of a type of torch."""
    return "uint16" if dtype == "bfloat16" else dtype


def are_finite(numbers: np.ndarray, dtype: str) -> bool:
    """Whether none is NaN or infinite; of bfloat16, that is if not all bits of the exponent are set."""
    import numpy as np

    if dtype == "bfloat16":
        return not (numbers & 0x7F80 == 0x7F80).any()
    return bool(np.isfinite(numbers).all())
