"""Processes that write to one store at an object store, and die: `python -m tests.store.s3_writers TASK URL FILE`.

A program of its own, which forks before it has spoken to the server: the client's threads do not survive a fork.
"""

import json
import os
import random
import signal
import sys
import time
from contextlib import suppress

from nemo_ds2_adapters.formats.reading import read_adapters
from nemo_ds2_adapters.store.store import AdapterStore
from tests.killing import fork

WRITERS = 16
ROUNDS = 4
KILLS = 12


def together(url: str, adapter) -> None:
    """Sixteen processes store versions of their own users and of one that they share."""

    def write(writer: int) -> None:
        store = AdapterStore(url)  # all of them make it, at the same time
        for count in range(ROUNDS):
            mine = {"writer": writer, "count": count}
            number = store.put("shared", adapter, metadata=mine).number
            assert store.get("shared", number).metadata == {"user_id": "shared", **mine}
            store.put(f"user{writer}", adapter, metadata=mine)
            assert store.get(f"user{writer}").metadata["count"] == count
            assert set(store.list()) <= {"shared", *(f"user{i}" for i in range(WRITERS))}

    children = [fork(lambda writer=writer: write(writer)) for writer in range(WRITERS)]
    assert not any([os.waitpid(child, 0)[1] for child in children])


def killed(url: str, adapter) -> None:
    """A process counts on with each version that it stores, and is killed, again and again; prints what it said."""
    chance = random.Random(0)
    reader, writer = os.pipe()

    def count_on() -> None:
        store = AdapterStore(url, keep_versions=3)
        count = store.get("a").metadata["count"] if store.has("a") else 0
        while True:
            count += 1
            store.put("a", adapter, metadata={"count": count})
            os.write(writer, count.to_bytes(4))

    said = []
    for _ in range(KILLS):
        child = fork(count_on)
        last = os.read(reader, 4)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.set_blocking(reader, False)
        with suppress(BlockingIOError):
            last = os.read(reader, 4096)[-4:]
        os.set_blocking(reader, True)
        said.append(int.from_bytes(last))
        fork_and_check = fork(lambda said=said[-1]: _check(url, said))
        assert os.waitpid(fork_and_check, 0)[1] == 0
    print(json.dumps(said))


def _check(url: str, said: int) -> None:
    store = AdapterStore(url)
    assert store.get("a").metadata["count"] in (said, said + 1)  # the last may be stored, but not yet said
    counts = [store.get("a", version.number).metadata["count"] for version in store.versions("a")]
    assert len(counts) <= 4 and counts == list(range(counts[0], counts[0] + len(counts)))


if __name__ == "__main__":
    task, url, path = sys.argv[1:]
    (adapter,) = read_adapters(path).values()
    {"together": together, "killed": killed}[task](url, adapter)
