"""A process that is killed while it writes leaves the old version or the new one, never neither or half."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from nemo_ds2_adapters.adapters.store import AdapterStore
from tests.adapters.store.conftest import value

TRACED = os.path.join("nemo_ds2_adapters", "adapters", "")  # every line of store and atomic writing is an instant
KILLS = 40


def fork(task: Callable[[], object]) -> int:
    """Run a task in another process; its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            task()
            code = 0
        finally:
            os._exit(code)
    return child


def killed_before_line(number: int, task: Callable[[], object]) -> bool:
    """Run a task in another process that dies by SIGKILL before the given line of the package; False if it ended."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: object):
        nonlocal lines
        if TRACED not in frame.f_code.co_filename:
            return None
        if event == "line":
            lines += 1
            if lines == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    def traced() -> None:
        sys.settrace(trace)
        task()

    _, status = os.waitpid(fork(traced), 0)
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


@pytest.mark.parametrize("user_exists", [True, False])
def test_put_killed_before_any_line(tmp_path: Path, adapter, user_exists: bool) -> None:
    store = AdapterStore(tmp_path / "store", keep_versions=3)
    contents = {number: adapter(number) for number in range(2)}
    store.put("old", contents[0])
    outcomes = []
    line = first_line = lines_before_append(store, contents[1])
    while True:
        user_id = "old" if user_exists else f"new{line}"
        before = value(store.get(user_id)) if store.has(user_id) else None
        new = 1 - (before or 0)
        killed = killed_before_line(line, lambda: store.put(user_id, contents[new]))
        now = value(store.get(user_id)) if store.has(user_id) else None
        assert now in (before, new)
        assert all(value(store.get(user_id, v.number)) in (0, 1) for v in store.versions(user_id))
        assert (now is not None) == (user_id in store.list())
        outcomes.append(now == new)
        if not killed:
            break
        line += 1
    assert line - first_line > 50 and outcomes[0] is False and outcomes[-1] is True
    assert outcomes == sorted(outcomes)  # there is one instant before which the old version stays, and one only
    assert store.verify().ok
    assert not list((tmp_path / "store").rglob("*.tmp"))
    assert store.verify().repaired == []


def lines_before_append(store: AdapterStore, contents) -> int:
    """How many lines a put runs before it takes the lock; nothing is written before."""
    lines, started = 0, False

    def trace(frame: FrameType, event: str, argument: object):
        nonlocal lines, started
        if TRACED not in frame.f_code.co_filename:
            return None
        started = started or frame.f_code.co_name == "lock"
        lines += event == "line" and not started
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    store.put("someone", contents)
    sys.settrace(before)
    return lines


def test_put_killed_at_random_times(store: AdapterStore, adapter) -> None:
    chance = random.Random(0)
    contents = adapter()
    store.put("a", contents, metadata={"count": 0})
    reader, writer = os.pipe()

    def count_on() -> None:
        count = store.get("a").info["metadata"]["count"]
        while True:
            count += 1
            store.put("a", contents, metadata={"count": count})
            os.write(writer, count.to_bytes(4, "little"))

    acknowledged = 0
    for _ in range(KILLS):
        child = fork(count_on)
        time.sleep(chance.uniform(0.01, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.set_blocking(reader, False)
        try:
            acknowledged = int.from_bytes(os.read(reader, 2**16)[-4:], "little")
        except BlockingIOError:
            pass  # killed before its first put was done
        count = store.get("a").info["metadata"]["count"]
        assert count in (acknowledged, acknowledged + 1)  # the last one may be stored, but not yet acknowledged
        acknowledged = count
    assert acknowledged > KILLS
    assert [store.get("a", v.number).info["metadata"]["count"] for v in store.versions("a")] == list(
        range(acknowledged + 1)
    )
    assert store.verify().ok


def test_erase_killed_before_any_line_is_completed_by_the_next_one(tmp_path: Path, adapter) -> None:
    store = AdapterStore(tmp_path / "store")
    contents = adapter()
    line, killed = 1, True
    while killed:
        for _ in range(2):
            store.put("a", contents)
        (store.cache_folder("a") / "activations.npy").write_bytes(b"speech")
        killed = killed_before_line(line, lambda: store.erase("a"))
        if store.has("a"):
            store.get("a")
        store.erase("a")
        assert not any((tmp_path / "store" / "users").glob("*/*"))
        line += 1
    assert line > 20
