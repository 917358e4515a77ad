"""Several processes and threads at one store: nothing is lost, nothing is torn."""

import multiprocessing
import random
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from pytest import raises

from nemo_ds2_adapters.errors import InputError, StoreBusyError, UnknownUserError
from nemo_ds2_adapters.store.store import AdapterStore

PROCESSES = 8
ROUNDS = 15


def run_in_processes(task: Callable[[int], None]) -> None:
    """Run `task(0)`, `task(1)`, ... in processes of their own; fail if one of them does."""
    context = multiprocessing.get_context("fork")
    errors = context.SimpleQueue()

    def run(number: int) -> None:
        try:
            task(number)
        except BaseException:
            errors.put(traceback.format_exc())

    processes = [context.Process(target=run, args=(number,)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert errors.empty(), errors.get()


def test_nothing_is_lost(tmp_path: Path, adapter) -> None:
    contents = adapter()

    def write(process: int) -> None:
        store = AdapterStore(tmp_path / "store")  # all of them make it, at the same time
        for count in range(ROUNDS):
            mine = {"writer": process, "count": count}
            store.put(f"user{process}", contents, metadata=mine)
            assert store.get(f"user{process}").metadata == {"user_id": f"user{process}", **mine}
            store.put("shared", contents, metadata=mine)
            assert "writer" in store.get("shared").metadata
            assert "shared" in store.list()

    run_in_processes(write)
    store = AdapterStore(tmp_path / "store", create=False)
    assert sorted(store.list()) == sorted(["shared", *(f"user{process}" for process in range(PROCESSES))])
    versions = store.versions("shared")
    assert [v.number for v in versions] == list(range(1, PROCESSES * ROUNDS + 1))
    written = [store.get("shared", v.number).metadata for v in versions]
    for process in range(PROCESSES):
        assert len(store.versions(f"user{process}")) == ROUNDS
        assert [each["count"] for each in written if each["writer"] == process] == list(range(ROUNDS))
    report = store.verify()
    assert report.ok and report.repaired == [] and report.versions == 2 * PROCESSES * ROUNDS


def test_readers_never_see_half_of_anything(tmp_path: Path, adapter, value) -> None:
    contents = [adapter(number) for number in range(3)]
    users = ["a", "b", "c"]

    def work(process: int) -> None:
        store = AdapterStore(tmp_path / "store", keep_versions=1)
        chance = random.Random(process)
        for _ in range(3 * ROUNDS):
            user_id = chance.choice(users)
            action = chance.choice(["put", "put", "get", "get", "list", "erase", "rollback", "delete"])
            try:
                if action == "put":
                    store.put(user_id, chance.choice(contents))
                elif action == "get":
                    assert value(store.get(user_id)) in (0, 1, 2)
                elif action == "list":
                    assert set(store.list()) <= set(users)
                else:
                    getattr(store, action)(user_id)
            except UnknownUserError:
                pass  # erased by another process

    run_in_processes(work)
    assert AdapterStore(tmp_path / "store").verify().problems == []


def test_threads_of_one_process(store: AdapterStore, adapter) -> None:
    contents = adapter()

    def write(thread: int) -> None:
        for count in range(ROUNDS):
            store.put("shared", contents, metadata={"count": [thread, count]})

    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(write, range(PROCESSES)))
    counts = [store.get("shared", v.number).metadata["count"] for v in store.versions("shared")]
    assert sorted(counts) == [[thread, count] for thread in range(PROCESSES) for count in range(ROUNDS)]


def test_renaming_to_and_fro_ends(store: AdapterStore, adapter) -> None:
    names = ["a", "b", "c", "d"]
    for name in names:
        store.put(name, adapter())

    def rename(process: int) -> None:
        for count in range(ROUNDS):
            old, new = names[process % 4], f"{names[process % 4]}2"
            with suppress(InputError):  # another process was faster
                store.rename(*((old, new) if (count + process) % 2 else (new, old)))

    run_in_processes(rename)
    assert sorted(user_id[0] for user_id in store.list()) == names


def test_a_lock_that_is_not_freed(tmp_path: Path, adapter, value) -> None:
    store = AdapterStore(tmp_path / "store", lock_timeout=0.05)
    store.put("a", adapter(1.0))
    (lock,) = (tmp_path / "store" / "locks").iterdir()
    with FileLock(lock):
        with raises(StoreBusyError, match=r"another process has held .*\.lock for 0.05 s"):
            store.put("a", adapter(2.0))
        assert value(store.get("a")) == 1  # readers do not wait
