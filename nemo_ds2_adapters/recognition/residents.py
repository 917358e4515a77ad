"""What a bank keeps: the stacked weights, who is in which slot, and what it counts."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nemo_ds2_adapters.adapters.adapter import State, check_finite
from nemo_ds2_adapters.layers import Branch, StackedAdapters
from nemo_ds2_adapters.recognition.loading import NETWORK


@dataclass
class BankStatistics:
    """What a bank did since it was made."""

    requests: int = 0  # users with an adapter who were asked for, each once per batch
    hits: int = 0  # of these, who was there in the current version, or was being loaded for another batch
    loads: int = 0
    evictions: int = 0  # users who made room for others
    load_seconds: float = 0.0  # total time of all loads
    defaults: int = 0  # users without an adapter who got the default, each once per batch
    resident: int = 0  # users, at this moment
    capacity: int = 0  # users

    @property
    def hit_rate(self) -> float:
        """Share of the requests that were hits, 1 if there were none."""
        return self.hits / self.requests if self.requests else 1.0


class Stack:
    """The users whose adapters have one architecture: their weights, and which slots are free."""

    def __init__(self, branches: Sequence[Branch], slots: int, like: Tensor) -> None:
        self.slots = slots  # the base's not counted
        self._dtype = like.dtype
        with torch.inference_mode(False):  # else nobody could write to them outside of inference mode
            self.adapters = StackedAdapters(branches, slots + 1, like.device, like.dtype)
        self.free = list(range(slots, 0, -1))

    def write(self, slot: int, key: str, states: Iterable[State]) -> None:
        """Give a slot a user's weights. Raises AdapterFileError: a number is too large for the bank's precision."""
        states = [{name.removeprefix(NETWORK): value for name, value in state.items()} for state in states]
        if any(value.dtype != self._dtype for state in states for value in state.values()):
            states = [{name: value.to(self._dtype) for name, value in state.items()} for state in states]
            check_finite(key, states)
        with torch.inference_mode(False), torch.no_grad():
            self.adapters.write(slot, states)


class Stacks:
    """A stack for each architecture that occurs."""

    def __init__(self, slots: int, like: Tensor) -> None:
        self._slots = slots
        self._like = like
        self._of: dict[Hashable, Stack] = {}

    def of(self, branches: Sequence[Branch]) -> Stack:
        """The stack of an architecture; if it is made, those that nobody uses go."""
        signature = tuple(branch.signature for branch in branches)
        if signature not in self._of:
            self._of = {known: stack for known, stack in self._of.items() if len(stack.free) < stack.slots}
            self._of[signature] = Stack(branches, self._slots, self._like)
        return self._of[signature]


@dataclass(eq=False)
class Resident:
    """One user's adapter in a bank. Its slot is not given to another while it is in use."""

    key: str
    users: int = 0  # batches that run with it
    is_ready: bool = False  # loaded, or failed to
    error: Exception | None = None
    version: Hashable = None
    checked: float = 0.0  # when its version was compared with the source's, seconds
    stack: Stack | None = None
    slot: int = 0
