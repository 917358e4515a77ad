"""A process that is killed while it writes leaves the old version or the new one, never neither or half."""

import os
import random
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.store.store import AdapterStore
from tests.killing import fork, kills, kills_while_writing

KILLS = 15


@pytest.mark.parametrize("user_exists", [True, False])
def test_put_killed_before_any_call(tmp_path: Path, adapter, user_exists: bool, value) -> None:
    store = AdapterStore(tmp_path / "store", keep_versions=2 if user_exists else None)
    contents = {number: adapter(number) for number in range(2)}
    for user_id in ("a", "a", "a", "like a"):
        store.put(user_id, contents[0])
    user_id, before = ("a", 0.0) if user_exists else ("someone", None)
    outcomes = []
    for call in kills(partial(store.put, user_id, contents[1])):
        now = value(store.get(user_id)) if store.has(user_id) else None
        assert now in (before, 1), call
        assert (now is not None) == (user_id in store.list()), call
        assert all(value(store.get(user_id, v.number)) in (0, 1) for v in store.versions(user_id)), call
        assert store.verify().ok and store.verify().repaired == [], call
        assert not any((tmp_path / "store").rglob("*.tmp")), call
        outcomes.append((call, now == 1))
        store.erase(user_id)
        for _ in range(3 if user_exists else 0):
            store.put(user_id, contents[0])
    happened = [new for _, new in outcomes]
    assert len(happened) >= 6 and happened == sorted(happened)  # up to one call the old version, from there the new
    first_new = happened.index(True)
    assert outcomes[first_new - 1][0].startswith("os.rename")  # which is the one step that makes it exist
    assert any(call == "os.fsync" for call, new in outcomes[:first_new])


def test_put_killed_in_the_middle_of_writing(tmp_path: Path, adapter, value) -> None:
    store = AdapterStore(tmp_path / "store")
    version = store.put("a", adapter(1.0))
    size = store.header("a").size
    for _ in kills_while_writing(partial(store.put, "a", adapter(2.0)), [0, 1, 100, size // 2, size - 1]):
        assert value(store.get("a")) == 1 and store.versions("a") == [version]
        assert len(store.verify().repaired) == 1  # half a file
    store.put("a", adapter(2.0))
    assert value(store.get("a")) == 2


def test_rename_killed_before_any_call(tmp_path: Path, adapter, value) -> None:
    store = AdapterStore(tmp_path / "store")
    calls = []
    for number in (1.0, 2.0):
        store.put("old", adapter(number))
    for call in kills(partial(store.rename, "old", "new")):
        old, new = ([value(store.get(u, v.number)) for v in store.versions(u)] for u in ("old", "new"))
        assert old == [1, 2] or new == [1, 2], call
        assert store.verify().ok
        calls.append(call)
        store.erase("new")
        store.erase("old")
        for number in (1.0, 2.0):
            store.put("old", adapter(number))
    assert len(calls) > 10
    assert list(store.list()) == ["new"] and len(store.versions("new")) == 2


def test_put_killed_at_random_times(store: AdapterStore, adapter) -> None:
    chance = random.Random(0)
    contents = adapter()
    store.put("a", contents, metadata={"count": 0})
    reader, writer = os.pipe()

    def count_on() -> None:
        count = store.get("a").metadata["count"]
        while True:
            count += 1
            store.put("a", contents, metadata={"count": count})
            os.write(writer, bytes([1]))

    acknowledged = 0
    for _ in range(KILLS):
        child = fork(count_on)
        os.read(reader, 1)
        acknowledged += 1
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.set_blocking(reader, False)
        with suppress(BlockingIOError):
            acknowledged += len(os.read(reader, 1000))
        os.set_blocking(reader, True)
        count = store.get("a").metadata["count"]
        assert count in (acknowledged, acknowledged + 1)  # the last one may be stored, but not yet acknowledged
        acknowledged = count
    assert [store.get("a", v.number).metadata["count"] for v in store.versions("a")] == list(range(acknowledged + 1))
    assert store.verify().ok


def test_erase_killed_before_any_call_is_completed_by_the_next_one(tmp_path: Path, adapter) -> None:
    store = AdapterStore(tmp_path / "store")
    contents = adapter()

    def fill() -> None:
        for _ in range(2):
            store.put("a", contents)
        (store.cache_folder("a") / "activations.npy").write_bytes(b"speech")

    fill()
    calls = 0
    for _ in kills(partial(store.erase, "a")):
        if store.has("a"):
            store.get("a")
        store.erase("a")
        assert not any((tmp_path / "store" / "users").glob("*/*"))
        fill()
        calls += 1
    assert calls >= 5
    assert not any(user_hash("a") in str(path) for path in (tmp_path / "store").rglob("*"))
