"""What a bank keeps: the stacked weights, who is in which slot, and what it counts."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from threading import Event

import torch
from torch import Tensor

from nemo_ds2_adapters.adapters.adapter import check_finite
from nemo_ds2_adapters.layers import WeightBank
from nemo_ds2_adapters.recognition.loading import LoadedAdapter, Part


@dataclass(frozen=True)
class BankStatistics:
    """What a bank did since it was made."""

    requests: int = 0  # users asked for, each once per batch
    hits: int = 0  # of these, who was there in the current version, or was being loaded for another batch
    loads: int = 0
    evictions: int = 0  # users who made room for others
    load_seconds: float = 0.0  # total time of all loads
    resident: int = 0  # users, at this moment
    capacity: int = 0  # users

    @property
    def hit_rate(self) -> float:
        """Share of the requests that were hits, 1 if there were none."""
        return self.hits / self.requests if self.requests else 1.0


class Stack:
    """The weights of adapters of one architecture: a bank per site, with the same slots in each."""

    def __init__(self, parts: Sequence[Part], capacity: int, like: Tensor) -> None:
        self.parts = parts
        self.dtype = like.dtype
        with torch.inference_mode(False):  # else nobody could write to them outside of inference mode
            self.banks = [WeightBank(part.network, capacity + 1, like.device, like.dtype) for part in parts]
        self.free = list(range(capacity, 0, -1))

    def write(self, slot: int, key: str, adapter: LoadedAdapter) -> None:
        """Give a slot a user's weights.

        Raises:
            AdapterFileError: a number is too large for the bank's precision.
        """
        with torch.inference_mode(False), torch.no_grad():
            for bank, state in zip(self.banks, adapter.states):
                converted = {name: value.to(self.dtype) for name, value in state.items()}
                check_finite(key, [converted])
                bank.write(slot, converted)


@dataclass(eq=False)
class Resident:
    """One user's adapter in a bank. Its slot is not given to another while it is in use."""

    key: str
    users: int = 0  # batches that run with it
    is_ready: Event = field(default_factory=Event)  # loaded, or failed to
    error: Exception | None = None
    version: Hashable = None
    checked: float = 0.0  # when its version was compared with the source's, seconds
    stack: Stack | None = None
    slot: int = 0
