"""A process that is killed while it writes leaves the old version or the new one, never neither or half."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType

import pytest

from nemo_ds2_adapters.formats import atomic
from nemo_ds2_adapters.store import local, shelf
from nemo_ds2_adapters.store.store import AdapterStore

WRITING = {module.__file__ for module in (atomic, local, shelf)}
KILLS = 15

Line = tuple[str, int]
Task = Callable[[], object]


def fork(task: Task) -> int:
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


def run_line_by_line(task: Task, before: Callable[[Line], None]) -> None:
    """Run a task and call `before` ahead of every line of the code that writes."""

    def trace(frame: FrameType, event: str, argument: object):
        if frame.f_code.co_filename not in WRITING:
            return None
        if event == "line":
            before((frame.f_code.co_filename, frame.f_lineno))
        return trace

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        task()
    finally:
        sys.settrace(outer)


def instants(task: Task, folder: Path) -> list[Line]:
    """Lines of the code that writes before which a task has left the folder in a new state, one line for each state.

    Until the next such line nothing changes on the disk, so to die at any other instant comes to the same.
    """
    lines: dict[Line, None] = {}
    states: list[object] = []

    def look(line: Line) -> None:
        state = sorted((path, path.lstat().st_size) for path in folder.rglob("*"))
        if line not in lines and state not in states[-1:]:
            lines[line] = None
            states.append(state)

    run_line_by_line(task, look)
    return list(lines)


def kill_before(line: Line, task: Task) -> None:
    """Run a task in another process, which dies by SIGKILL when it comes to a line."""

    def die(at: Line) -> None:
        if at == line:
            os.kill(os.getpid(), signal.SIGKILL)

    _, status = os.waitpid(fork(lambda: run_line_by_line(task, die)), 0)
    assert status == signal.SIGKILL


@pytest.mark.parametrize("user_exists", [True, False])
def test_put_killed_before_any_line(tmp_path: Path, adapter, user_exists: bool, value) -> None:
    store = AdapterStore(tmp_path / "store", keep_versions=2 if user_exists else None)
    contents = {number: adapter(number) for number in range(2)}
    for user_id in ("a", "a", "a", "like a"):
        store.put(user_id, contents[0])
    lines = instants(lambda: store.put("a" if user_exists else "someone", contents[0]), tmp_path / "store")
    assert len(lines) >= 6
    outcomes = []
    for i, line in enumerate(lines):
        user_id = "a" if user_exists else f"new{i}"
        before = value(store.get(user_id)) if user_exists else None
        new = 1 - (before or 0)
        kill_before(line, partial(store.put, user_id, contents[new]))
        now = value(store.get(user_id)) if store.has(user_id) else None
        assert now in (before, new)
        assert (now is not None) == (user_id in store.list())
        assert all(value(store.get(user_id, v.number)) in (0, 1) for v in store.versions(user_id))
        outcomes.append(now == new)
    assert outcomes[0] is False and outcomes[-1] is True
    assert outcomes == sorted(outcomes)  # up to one line the old version stays, from there on it is the new one
    assert store.verify().ok
    assert not any((tmp_path / "store").rglob("*.tmp"))
    assert store.verify().repaired == []


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


def test_erase_killed_before_any_line_is_completed_by_the_next_one(tmp_path: Path, adapter) -> None:
    store = AdapterStore(tmp_path / "store")
    contents = adapter()

    def fill() -> None:
        for _ in range(2):
            store.put("a", contents)
        (store.cache_folder("a") / "activations.npy").write_bytes(b"speech")

    fill()
    lines = instants(lambda: store.erase("a"), tmp_path / "store")
    assert len(lines) >= 5
    for line in lines:
        fill()
        kill_before(line, lambda: store.erase("a"))
        if store.has("a"):
            store.get("a")
        store.erase("a")
        assert not any((tmp_path / "store" / "users").glob("*/*"))
