"""Whose adapters are in memory: who is loaded when asked for, who stays while in use, and who has to leave."""

import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from threading import Condition

from torch import Tensor

from nemo_ds2_adapters.adapters.adapter import State
from nemo_ds2_adapters.errors import AdapterNameError, InputError, UnknownUserError
from nemo_ds2_adapters.layers import Branch
from nemo_ds2_adapters.recognition.loading import AttachedAdapters, StoredAdapters
from nemo_ds2_adapters.recognition.residents import BankStatistics, Resident, Stacks

UNKNOWN = UnknownUserError, AdapterNameError  # nobody's in the store, or not attached


class Residency:
    """The adapters of up to `capacity` users of a source; see `AdapterBank`, which is one for a model."""

    def __init__(
        self,
        source: AttachedAdapters | StoredAdapters,
        like: Tensor,
        capacity: int,
        check_seconds: float,
        wait_seconds: float,
    ) -> None:
        """Args: where adapters come from, a tensor of the type and device that they shall have, and the bank's."""
        self.capacity = capacity
        self.check_seconds = check_seconds
        self.wait_seconds = wait_seconds
        self._source = source
        self._default: Resident | None = None
        self._stacks = Stacks(capacity + 1, like)  # and the default's
        self._residents: OrderedDict[str, Resident] = OrderedDict()  # least recently used first
        self._leaving: set[Resident] = set()  # replaced by a newer version while in use
        self._pinned: set[str] = set()
        self._counts = BankStatistics(capacity=capacity)
        self._changed = Condition()  # guards all of these; notified when a slot may have become free

    @property
    def statistics(self) -> BankStatistics:
        """Counts and times at this moment."""
        with self._changed:
            return replace(self._counts, resident=len(self._residents))

    def check_held(self, resident: Resident) -> Resident:
        """Notice that a user whose adapter is held was erased; the store is asked once in `check_seconds`.

        Returns:
            the resident; of somebody who was erased the default, which is held in its place.

        Raises:
            UnknownUserError: they were erased (AdapterNameError for an attached adapter), and there is no default. The
                adapter is still held.
        """
        now = time.monotonic()
        if resident is self._default or now - resident.checked < self.check_seconds:
            return resident
        try:
            version = self._source.version(resident.key)
        except InputError as error:
            with self._changed:
                self._remove(resident.key)
                if self._default is None or not isinstance(error, UNKNOWN):
                    raise
                self._default.users += 1
                self._counts.defaults += 1
            self._release([resident])
            return self._default
        with self._changed:
            resident.checked = now
            if version != resident.version and resident is self._residents.get(resident.key):
                self._remove(resident.key)  # who asks next gets the new one
        return resident

    def pin(self, *users: str) -> None:
        """Load users, and keep them until `unpin`. Raises what `route` does."""
        with self._changed:
            if len(self._pinned | set(users)) > self.capacity:
                raise InputError(f"{len(self._pinned | set(users))} pinned users do not fit: capacity={self.capacity}")
        self._release(self._acquire(set(users), pin=True).values())

    def unpin(self, *users: str) -> None:
        """Let users leave again when others need their place."""
        with self._changed:
            self._pinned.difference_update(users)
            self._changed.notify_all()

    def _acquire(self, keys: set[str], pin: bool = False) -> dict[str, Resident]:
        """The users' residents, ready and in use by the caller, who must release them."""
        current, unknown = self._check_versions(keys)
        known = keys - unknown
        if len(known) > self.capacity:
            raise InputError(f"{len(known)} users in one batch, but capacity={self.capacity}: make the bank larger")
        with self._changed:
            residents, new = self._reserve(known, current)
            if self._default is not None:
                residents |= dict.fromkeys(unknown, self._default)
                self._default.users += len(unknown)
                self._counts.defaults += len(unknown)
            newly_pinned = keys - self._pinned if pin else set()
            self._pinned |= newly_pinned
        try:
            for resident in new:
                self._load(resident)
            with self._changed:
                self._changed.wait_for(lambda: all(resident.is_ready for resident in residents.values()))
            for resident in residents.values():
                if resident.error is not None:
                    raise resident.error
        except BaseException as error:
            for resident in new:  # those not begun, as well
                self._fail(resident, InputError(f"loading {resident.key!r} was given up: ask again"))
            self._release(residents.values())
            self.unpin(*newly_pinned)
            if self._default is not None and isinstance(error, UNKNOWN):  # erased since it was looked for
                return self._acquire(keys, pin)
            raise
        return residents

    def _check_versions(self, keys: set[str]) -> tuple[dict[str, Hashable], set[str]]:
        """The source's versions of residents that were not compared with it for a while, others need no look; and
        with a default, which users the source does not know.

        Raises InputError: the source has no such user, and there is no default.
        """
        now = time.monotonic()
        with self._changed:
            checked = {key: r.checked for key in keys if (r := self._residents.get(key))}
        absent = self._default is not None  # who is not resident is looked for if somebody may take their place
        versions, unknown = {}, set()
        for key in keys:
            if now - checked[key] >= self.check_seconds if key in checked else absent:
                try:
                    versions[key] = self._source.version(key)
                except InputError as error:  # then nobody has the adapter any more
                    with self._changed:
                        self._remove(key)
                    if self._default is None or not isinstance(error, UNKNOWN):
                        raise
                    unknown.add(key)
        return versions, unknown

    def _reserve(self, keys: set[str], current: dict[str, Hashable]) -> tuple[dict[str, Resident], list[Resident]]:
        """Take all the users into use at once, or wait with none: two batches cannot wait for each other's slots."""
        now = time.monotonic()
        for key, version in current.items():
            resident = self._residents.get(key)
            if resident is not None and resident.is_ready:
                resident.checked = now
                if resident.version != version:
                    self._remove(key)
        deadline = now + self.wait_seconds
        while not self._make_room(keys):
            if not self._changed.wait(deadline - time.monotonic()):
                raise InputError(
                    f"no room for {len(keys)} users within {self.wait_seconds:g} s: all {self.capacity} slots are "
                    f"pinned or in use by running batches; make the bank larger"
                )
        new = []
        for key in keys:
            if key not in self._residents:
                self._residents[key] = Resident(key)
                new.append(self._residents[key])
            self._residents[key].users += 1
            self._residents.move_to_end(key)
        self._counts.requests += len(keys)
        self._counts.hits += len(keys) - len(new)
        return {key: self._residents[key] for key in keys}, new

    def _make_room(self, keys: set[str]) -> bool:
        """Evict until there is a slot for each of the users, if that is possible."""
        missing = sum(key not in self._residents for key in keys)
        excess = len(self._residents) + len(self._leaving) + missing - self.capacity
        if excess <= 0:
            return True
        idle = (k for k, r in self._residents.items() if not r.users and k not in self._pinned and k not in keys)
        oldest = list(islice(idle, excess))
        if len(oldest) < excess:
            return False
        for key in oldest:
            self._remove(key)
        self._counts.evictions += excess
        return True

    def _load(self, resident: Resident) -> None:
        start = time.monotonic()
        try:
            resident.version, branches, weights = self._source.load(resident.key)
            self._place(resident, branches, weights)
        except Exception as error:
            self._fail(resident, error)
            return
        with self._changed:
            resident.checked = start
            resident.is_ready = True
            self._counts.loads += 1
            self._counts.load_seconds += time.monotonic() - start
            self._changed.notify_all()

    def _place(self, resident: Resident, branches: Sequence[Branch], weights: Mapping[str, State]) -> None:
        with self._changed:
            resident.stack = self._stacks.of(branches)
            resident.slot = resident.stack.free.pop()
        resident.stack.write(resident.slot, resident.key, weights.values())

    def _keep_default(self, branches: Sequence[Branch], weights: Mapping[str, State]) -> None:
        """What people get whom the source does not know, in a slot of its own: nobody's, and so it never leaves."""
        resident = Resident("the default")
        self._place(resident, branches, weights)
        resident.is_ready = True
        self._default = resident

    def _fail(self, resident: Resident, error: Exception) -> None:
        """Tell who waits for it that it cannot be had; nothing happens if it is ready, or has failed, already."""
        with self._changed:
            if not resident.is_ready:
                if self._residents.get(resident.key) is resident:
                    self._remove(resident.key)
                resident.error = error
                resident.is_ready = True
                self._changed.notify_all()

    def _remove(self, key: str) -> None:
        """Forget a resident; its slot becomes free when no batch uses it any more."""
        resident = self._residents.pop(key, None)
        if resident is not None:
            self._leaving.add(resident)
            self._free_unused(resident)

    def _release(self, residents: Iterable[Resident]) -> None:
        with self._changed:
            for resident in residents:
                resident.users -= 1
                self._free_unused(resident)
            self._changed.notify_all()

    def _free_unused(self, resident: Resident) -> None:
        if resident in self._leaving and not resident.users:
            self._leaving.remove(resident)
            if resident.stack is not None and resident.slot:
                resident.stack.free.append(resident.slot)
