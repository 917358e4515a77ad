"""A store of many users: does looking up, reading and storing get slower with their number?

    python benchmarks/store.py --users 1000 10000 100000

Fills a directory with adapters of as many users as asked, and times the calls on users taken at random. The times are
processor time, so that other work on the machine does not count; only put, which waits for the disk, has elapsed time.
"""

import argparse
import os
import random
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from nemo_ds2_adapters.adapters.adapter import Adapter, Info
from nemo_ds2_adapters.adapters.users import adapter_name_for_user, user_hash
from nemo_ds2_adapters.store.store import AdapterStore
from nemo_ds2_adapters.store.version import Version


def user_id_of(number: int) -> str:
    """Ids of one length, so that one can take another's place in a file."""
    return f"user{number:07d}@example.com"


def adapter_of(sizes: Sequence[int]) -> Adapter:
    """An adapter in the encoder, Linear layers of these sizes, as a model's would be."""
    state = {}
    for i, (width, following) in enumerate(pairwise(sizes)):
        state[f"module.{3 * i}.weight"] = torch.randn(following, width)
        state[f"module.{3 * i}.bias"] = torch.zeros(following)
    config = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": list(sizes[1:-1])}
    info = Info("0" * 64, {}, "2026-01-31T12:00:00+00:00", {})
    return Adapter("benchmark", config, {"encoder": state}, info=info)


class Filler:
    """Writes many users' adapters quickly: files as `put` writes them, without waiting for the disk each time.

    The first one is really put; in the others, user id and adapter name are exchanged in its bytes.
    """

    def __init__(self, root: Path, adapter: Adapter) -> None:
        self.root = root
        user_id = user_id_of(0)
        version = AdapterStore(root).put(user_id, adapter)
        self._template = (self._folder(user_id) / version.file_name).read_bytes()
        self._names = user_id, adapter_name_for_user(user_id)

    def fill(self, first: int, last: int) -> None:
        """Add users `first` to `last`, the latter not included."""
        for number in track(range(max(first, 1), last), f"filling to {last:,} users", transient=True):
            user_id = user_id_of(number)
            data = self.bytes_of(user_id)
            folder = str(self._folder(user_id))
            os.makedirs(folder, mode=0o700)
            name = f"{folder}/{Version.now(data, 1).file_name}"
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(descriptor, data)
            os.close(descriptor)

    def bytes_of(self, user_id: str) -> bytes:
        """The file of a user."""
        data = self._template
        for old, new in zip(self._names, (user_id, adapter_name_for_user(user_id))):
            data = data.replace(old.encode(), new.encode())
        return data

    def _folder(self, user_id: str) -> Path:
        user = user_hash(user_id)
        return self.root / "users" / user[:2] / user


def milliseconds(call: Callable[[str], object], user_ids: list[str], clock: Callable[[], float]) -> str:
    """Median time of a call, over these users."""
    times = []
    for user_id in user_ids:
        start = clock()
        call(user_id)
        times.append(clock() - start)
    return f"{1000 * statistics.median(times):.2f}"


def listing(store: AdapterStore) -> tuple[float, float, int]:
    """Processor time until the first user id and until the last one, seconds, and how many there are."""
    start = time.process_time()
    user_ids = store.list()
    next(user_ids)
    first = time.process_time() - start
    count = 1 + sum(1 for _ in user_ids)
    return first, time.process_time() - start, count


def memory_of_listing(store: AdapterStore) -> float:
    """Most memory that listing up to 10,000 users takes at any time, MB."""
    tracemalloc.start()
    for _ in islice(store.list(), 10_000):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[100, 10_000, 100_000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 8, 16], help="of the adapter's Linear layers")
    parser.add_argument("--calls", type=int, default=500, help="of each kind")
    parser.add_argument("--folder", type=Path, help="where to make the store, which is removed afterwards")
    arguments = parser.parse_args()

    chance = random.Random(0)
    adapter = adapter_of(arguments.sizes)
    table = Table(title=f"{adapter.parameters:,} parameters per user; ms, median of {arguments.calls} calls")
    for column in ("users", "has", "get", "put", "put, new user", "list, first", "list, all: s", "list: MB"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        filler = Filler(Path(folder) / "store", adapter)
        store = AdapterStore(filler.root)
        filled = 1
        for users in sorted(arguments.users):
            filler.fill(filled, users)
            filled = users
            first, last, count = listing(store)
            assert count == users
            some = [user_id_of(chance.randrange(users)) for _ in range(arguments.calls)]
            new = [f"new user {i}" for i in range(arguments.calls)]
            table.add_row(
                f"{users:,}",
                milliseconds(store.has, some, time.process_time),
                milliseconds(store.get, some, time.process_time),
                milliseconds(lambda user_id: store.put(user_id, adapter), some, time.perf_counter),
                milliseconds(lambda user_id: store.put(user_id, adapter), new, time.perf_counter),
                f"{1000 * first:.0f}",
                f"{last:.1f}",
                f"{memory_of_listing(store):.1f}",
            )
            for user_id in new:
                store.erase(user_id)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
