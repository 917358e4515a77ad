"""What verify finds and mends, what erase leaves, who may read."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.store.store import AdapterStore

USER_ID = "john.doe@example.com"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def filled(store: AdapterStore, adapter) -> AdapterStore:
    """Two users, one with two versions."""
    store.put("anna", adapter())
    for number in (1.0, 2.0):
        store.put(USER_ID, adapter(number))
    return store


def folder_of(root: Path, user_id: str) -> Path:
    (folder,) = root.glob(f"users/*/{user_hash(user_id)}")
    return folder


def test_a_sound_store(filled: AdapterStore) -> None:
    shares: list[float] = []
    report = filled.verify(shares.append)
    assert (report.users, report.versions, report.repaired, report.problems) == (2, 3, [], [])
    assert report.ok
    assert shares == sorted(shares) and shares[-1] == 1


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a file's header; its name stays."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    change(header)
    text = header["text"].encode() if "text" in header else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


HARM = {
    "gone": lambda header: header.clear(),
    "of another user": lambda header: header["__metadata__"].update(
        info=header["__metadata__"]["info"].replace(USER_ID, "eve")
    ),
    "a number for a user": lambda header: header["__metadata__"].update(
        info=header["__metadata__"]["info"].replace(f'"{USER_ID}"', "7")
    ),
    "half a character": lambda header: header["__metadata__"].update(
        info=header["__metadata__"]["info"].replace(USER_ID, "\\ud800")
    ),
    "nested": lambda header: header.update(text="[" * 100_000),
    "nested in a section": lambda header: header["__metadata__"].update(info='{"a":' * 100_000 + "1" + "}" * 100_000),
    "nested objects": lambda header: header["__metadata__"].update(config='{"a":' * 60 + "1" + "}" * 60),
    "digits": lambda header: header.update(text='{"a": ' + "9" * 5000 + "}"),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_a_damaged_header_is_that_users_problem(filled: AdapterStore, root: Path, harm) -> None:
    changed(max(folder_of(root, USER_ID).glob("*.safetensors")), harm)
    problems: list[AdapterFileError] = []
    assert list(filled.list(on_error=problems.append)) == ["anna"]
    assert [user_hash(USER_ID) in str(problem) for problem in problems] == [True]
    with pytest.raises(AdapterFileError, match=user_hash(USER_ID)):
        list(filled.list())
    for call in (filled.get, filled.header, filled.read):
        with pytest.raises(AdapterFileError, match="user 'john"):
            call(USER_ID)
    report = filled.verify()
    assert (report.users, report.versions, len(report.problems)) == (2, 3, 1)
    filled.rollback(USER_ID)
    assert set(filled.list()) == {"anna", USER_ID} and filled.get(USER_ID).metadata["user_id"] == USER_ID


def test_damage_is_reported_and_left(filled: AdapterStore, root: Path, adapter, value) -> None:
    path = min(folder_of(root, USER_ID).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    shutil.copytree(folder_of(root, "anna"), root / "users" / "00" / ("0" * 40))  # another user's files
    (folder_of(root, "anna") / "notes.txt").touch()
    report = filled.verify()
    assert not report.ok
    assert sorted(problem.rpartition(": ")[2].partition(",")[0] for problem in report.problems) == [
        "does not belong here",
        "is damaged",
        "is of another user",
    ]
    assert path.exists()
    assert value(filled.get(USER_ID)) == 2


def test_listing_says_what_it_cannot_read(filled: AdapterStore, root: Path) -> None:
    for path in folder_of(root, "anna").iterdir():
        path.write_bytes(b"")
    with pytest.raises(AdapterFileError, match=user_hash("anna")):
        list(filled.list())
    filled.erase("anna")
    assert list(filled.list()) == [USER_ID]


def test_what_an_interrupted_write_left_goes(filled: AdapterStore, root: Path) -> None:
    folder = folder_of(root, USER_ID)
    (folder / ".000003-x.safetensors.0123.tmp").write_bytes(b"half")
    (folder / "000003-x.json").write_bytes(b"an index entry of an older version of this package")
    empty = root / "users" / "ff" / ("f" * 40)
    empty.mkdir(parents=True)
    (root / "users" / ".DS_Store").touch()
    report = filled.verify()
    assert report.ok and len(report.repaired) == 2 and report.users == 2
    assert not empty.exists() and len(list(folder.iterdir())) == 2


def test_erase_leaves_nothing(filled: AdapterStore, root: Path, tmp_path: Path) -> None:
    cache = filled.cache_folder(USER_ID)
    (cache / "recordings").mkdir()
    (cache / "recordings" / "activations.npy").write_bytes(USER_ID.encode())
    (folder_of(root, USER_ID) / ".000003-x.safetensors.0123.tmp").write_bytes(b"half")
    assert filled.verify().ok
    assert any(found(root, needle) for needle in (USER_ID, user_hash(USER_ID)))
    assert filled.erase(USER_ID) is True
    for needle in (USER_ID, user_hash(USER_ID)):
        assert found(root, needle) == []
    assert not filled.has(USER_ID) and list(filled.list()) == ["anna"]
    assert filled.erase(USER_ID) is False


def found(root: Path, needle: str) -> list[Path]:
    """Files and directories with some text in their names or contents."""
    return [
        path
        for path in root.rglob("*")
        if needle in str(path) or (path.is_file() and needle.encode() in path.read_bytes())
    ]


def test_delete_leaves_the_cache(filled: AdapterStore, root: Path) -> None:
    cache = filled.cache_folder(USER_ID)
    (cache / "activations.npy").touch()
    filled.delete(USER_ID)
    assert not filled.has(USER_ID) and (cache / "activations.npy").exists()
    filled.delete("anna")
    assert not any(root.glob(f"users/*/{user_hash('anna')}"))
    assert filled.verify().ok and list(filled.list()) == []


def test_only_an_object_store_has_no_cache_folder(url: str) -> None:
    with pytest.raises(InputError, match="only a store in a local directory"):
        AdapterStore(url).cache_folder("a")


def test_a_place_that_cannot_be_written(filled: AdapterStore, root: Path, adapter) -> None:
    shard = root / "users" / user_hash("eve")[:2]
    shard.touch()
    with pytest.raises(AdapterFileError, match=r"cannot be written \(Not a directory\)"):
        filled.put("eve", adapter())
    with pytest.raises(AdapterFileError, match="cannot be written"):
        filled.cache_folder("eve")


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_files_are_their_owners_only(tmp_path: Path, adapter, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = AdapterStore(tmp_path / "store")
        store.put("a", adapter())
        (store.cache_folder("b") / "activations.npy").touch(0o600)
    finally:
        os.umask(before)
    paths = [tmp_path / "store", *(tmp_path / "store").rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_file()} == {0o600}
    for path in paths:
        path.chmod(0o755)
    assert len(store.verify().repaired) == 5  # two folders, a version, a cache with a file
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "store").glob("users/*/*")} == {0}
