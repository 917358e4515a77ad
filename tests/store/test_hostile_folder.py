"""Links, pipes, files in the wrong place and missing permissions: nothing outside the store is touched, nobody waits,
and nobody but the user concerned notices."""

import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.errors import AdapterFileError
from nemo_ds2_adapters.store.local import OLD
from nemo_ds2_adapters.store.store import AdapterStore

NOBODY = 65534

State = dict[str, tuple[int, int, bytes]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def nobody_waits() -> Iterator[None]:
    """What blocks fails."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def folder_of(root: Path, user_id: str) -> Path:
    return root / "users" / user_hash(user_id)[:2] / user_hash(user_id)


def state(folder: Path) -> State:
    """Everything in a folder: modes, inodes, contents."""
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_ino, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def calls(store: AdapterStore, adapter: Callable[..., object]) -> dict[str, Callable[[], object]]:
    return {
        "put": lambda: store.put("a", adapter()),
        "get": lambda: store.get("a"),
        "header": lambda: store.header("a"),
        "has": lambda: store.has("a"),
        "versions": lambda: store.versions("a"),
        "rollback": lambda: store.rollback("a"),
        "delete": lambda: store.delete("a"),
        "copy to": lambda: store.copy("b", "a"),
        "rename": lambda: store.rename("a", "c"),
        "rename to": lambda: store.rename("b", "a"),
        "cache_folder": lambda: store.cache_folder("a"),
        "list": lambda: list(store.list()),
    }


@pytest.mark.parametrize("linked", ["user", "shard"])
def test_a_folder_that_is_a_link(store: AdapterStore, root: Path, tmp_path: Path, adapter, linked: str) -> None:
    for _ in range(2):
        store.put("a", adapter())
    store.put("b", adapter())
    elsewhere, inside = tmp_path / "elsewhere", folder_of(root, "a")
    link = inside if linked == "user" else inside.parent
    link.rename(elsewhere)
    for path in elsewhere.rglob("*.safetensors"):
        path.chmod(0o644)
    (elsewhere / ".mine.tmp").write_text("not the store's")
    (elsewhere / "cache").mkdir(exist_ok=True)
    link.symlink_to(elsewhere)
    before = state(elsewhere)
    for name, call in calls(store, adapter).items():
        with pytest.raises(AdapterFileError, match="is a symbolic link, which a store does not follow"):
            call()
            pytest.fail(name)
    report = store.verify()
    assert (report.users, report.repaired) == (1, []) and "is a symbolic link" in " ".join(report.problems)
    problems: list[AdapterFileError] = []
    assert list(store.list(on_error=problems.append)) == ["b"] and len(problems) == 1
    if linked == "user":
        assert store.erase("a") is True and not link.is_symlink()
        assert store.verify().ok
    else:
        with pytest.raises(AdapterFileError, match="is a symbolic link"):
            store.erase("a")
    assert state(elsewhere) == before


def test_a_cache_that_is_a_link(store: AdapterStore, root: Path, tmp_path: Path, adapter) -> None:
    store.put("a", adapter())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (elsewhere / "old.tmp").write_text("not the store's")
    os.utime(elsewhere / "old.tmp", (0, 0))
    (folder_of(root, "a") / "cache").symlink_to(elsewhere)
    before = state(elsewhere)
    with pytest.raises(AdapterFileError, match="is a symbolic link"):
        store.cache_folder("a")
    report = store.verify()
    assert report.versions == 1 and len(report.problems) == 1 and "is a symbolic link" in report.problems[0]
    store.erase("a")
    assert state(elsewhere) == before


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "socket"])
def test_a_version_that_is_no_file(store: AdapterStore, root: Path, tmp_path: Path, adapter, value, kind: str) -> None:
    for number in (1.0, 2.0):
        store.put("a", adapter(number))
    store.put("b", adapter())
    path = max(folder_of(root, "a").iterdir())
    path.rename(tmp_path / "elsewhere.safetensors")
    {
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(tmp_path / "elsewhere.safetensors"),
        "folder": path.mkdir,
        "socket": lambda: os.mknod(path, stat.S_IFSOCK | 0o600),
    }[kind]()
    for call in (store.get, store.header, store.read):
        with pytest.raises(AdapterFileError, match=r"is no regular file|cannot be read"):
            call("a")
    problems: list[AdapterFileError] = []
    assert list(store.list(on_error=problems.append)) == ["b"] and len(problems) == 1
    report = store.verify()
    assert (report.versions, len(report.problems)) == (3, 1)
    store.rollback("a", 1)
    assert value(store.get("a")) == 1
    assert store.erase("a") and (tmp_path / "elsewhere.safetensors").exists()


def test_files_where_folders_belong(store: AdapterStore, root: Path, adapter) -> None:
    store.put("a", adapter())
    shard = folder_of(root, "b").parent
    shard.write_text("")
    for call in (lambda: store.put("b", adapter()), lambda: list(store.list())):
        with pytest.raises(AdapterFileError, match="Not a directory"):
            call()
    assert not store.has("b") and store.erase("b") is False
    assert list(store.list(on_error=lambda error: None)) == ["a"]
    assert len(store.verify().problems) == 1


@contextmanager
def without_rights(root: Path, folder: Path) -> Iterator[None]:
    """A folder of a store that cannot be written; the superuser, who can write everything, works as somebody else."""
    folder.chmod(0o500)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            for above in root.parents:
                if above.owner() == "root" and above.stat().st_mode & 0o077 == 0:
                    above.chmod(0o711)
            for path in (root, *root.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)


def test_a_store_that_cannot_be_written(store: AdapterStore, root: Path, adapter) -> None:
    contents = adapter()
    store.put("a", contents)
    store.check_writable()
    (folder_of(root, "a") / ".x.tmp").touch()
    with without_rights(root, folder_of(root, "a")):
        for call in (lambda: store.put("a", contents), lambda: store.erase("a"), lambda: store.rename("a", "b")):
            with pytest.raises(AdapterFileError, match=r"users/.*cannot be \w+ \(Permission denied\)"):
                call()
        assert [problem.rpartition(": ")[2] for problem in store.verify().problems] == [
            "cannot be removed (Permission denied)"
        ]
    with without_rights(root, root / "users"):
        for call in (store.check_writable, lambda: store.put("somebody", contents)):
            with pytest.raises(AdapterFileError, match=r"users/.*cannot be written \(Permission denied\)"):
                call()
    with without_rights(root, root / "locks"):
        for call in (store.check_writable, lambda: store.put("another", contents)):
            with pytest.raises(AdapterFileError, match=r"locks/.*cannot be \w+ \(Permission denied\)"):
                call()
    store.erase("b")  # renaming wrote it, and could not remove the old one
    assert not any(user_hash(user_id) in str(path) for user_id in ("somebody", "another") for path in root.rglob("*"))
    assert list(AdapterStore(root).list()) == ["a"] and store.verify().ok


def test_a_store_that_is_gone(store: AdapterStore, root: Path, adapter) -> None:
    store.put("a", adapter())
    (root / "users").rename(root / "elsewhere")
    assert not store.has("a")
    for call in (store.check_writable, lambda: store.put("a", adapter()), lambda: list(store.list()), store.verify):
        with pytest.raises(AdapterFileError, match=r"cannot be \w+ \(No such file or directory\)"):
            call()


def test_a_put_that_fails_leaves_no_trace(store: AdapterStore, root: Path, adapter, monkeypatch) -> None:
    for _ in range(2):
        store.put("a", adapter())
    before = sorted(root.rglob("*"))

    replace, room = os.replace, 1  # files

    def full(source: str, target: str) -> None:
        nonlocal room
        if not room:
            raise OSError(28, "No space left on device")
        room -= 1
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        for call in (lambda: store.rename("a", "somebody"), lambda: store.put("somebody", adapter())):
            with pytest.raises(AdapterFileError, match=r"cannot be written \(No space left on device\)"):
                call()
    assert not any(user_hash("somebody") in str(path) for path in root.rglob("*"))
    assert {path for path in before if path.is_file()} <= set(root.rglob("*"))
    assert list(store.list()) == ["a"]


def test_what_killed_writers_left_in_a_cache_goes(store: AdapterStore, adapter) -> None:
    store.put("a", adapter())
    cache = store.cache_folder("a")
    (cache / "deep").mkdir()
    now = time.time()
    for name, age in {"new.tmp": 60, "old.tmp": OLD + 60, "deep/old.tmp": OLD + 60, "old.npy": OLD + 60}.items():
        (cache / name).write_bytes(b"speech")
        os.utime(cache / name, (now - age, now - age))
    report = store.verify()
    assert [line.partition(":")[0].partition("/")[2] for line in report.repaired if "removed" in line] == [
        "cache/old.tmp",
        "cache/deep/old.tmp",
    ]
    assert sorted(path.name for path in cache.rglob("*") if path.is_file()) == ["new.tmp", "old.npy"]
