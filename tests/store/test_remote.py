"""What a store promises at an object store, which has no locks and whose listings a client may cache."""

from collections.abc import Iterator
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.errors import AdapterFileError, StoreAccessError
from nemo_ds2_adapters.store import folder
from nemo_ds2_adapters.store.store import AdapterStore


class CachingFileSystem(MemoryFileSystem):
    """Remembers listings as clients of object stores do, and can be made to fail."""

    protocol = "caching"
    fails_on = None

    def ls(self, path, detail=True, **kwargs):
        key = (self._strip_protocol(path), detail)
        if key not in self.dircache_:
            self.dircache_[key] = super().ls(path, detail, **kwargs)
        return self.dircache_[key]

    def invalidate_cache(self, path=None):
        self.dircache_.clear()

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if self.fails_on is not None and path.endswith(self.fails_on):
            raise ConnectionError("the network is gone")
        super().pipe_file(path, value, mode, **kwargs)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("caching://"))

    @property
    def dircache_(self):
        return self.__dict__.setdefault("_listings", {})


@pytest.fixture
def url() -> Iterator[str]:
    fsspec.register_implementation("caching", CachingFileSystem, clobber=True)
    yield f"caching://{uuid4().hex}/store"
    CachingFileSystem.fails_on = None


def test_what_others_write_is_seen(url: str, adapter, value) -> None:
    mine, theirs = AdapterStore(url), AdapterStore(url)
    theirs._shelf.folder._fs = CachingFileSystem(skip_instance_cache=True)  # as in another process
    for number in (1.0, 2.0):
        assert list(mine.list()) == ([] if number == 1 else ["a"])
        theirs.put("a", adapter(number))
        assert value(mine.get("a")) == number
    theirs.erase("a")
    assert not mine.has("a") and list(mine.list()) == []


def test_a_put_that_fails_leaves_the_old_version_and_no_trace(url: str, adapter, value) -> None:
    store = AdapterStore(url)
    store.put("a", adapter(1.0))
    CachingFileSystem.fails_on = ".safetensors"
    for user_id in ("a", "b"):
        with pytest.raises(StoreAccessError, match=r"users/.*cannot be written \(the network is gone\)"):
            store.put(user_id, adapter(2.0))
    CachingFileSystem.fails_on = None
    fs, root = fsspec.core.url_to_fs(url)
    assert not [path for path in fs.find(root) if user_hash("b") in path or b'"b"' in fs.cat_file(path)]
    assert value(store.get("a")) == 1 and list(store.list()) == ["a"]
    assert store.verify().ok
    assert store.verify().repaired == []
    assert store.put("a", adapter(3.0)).number == 2


def test_two_writers_at_the_same_time_are_both_kept(url: str, adapter, monkeypatch: pytest.MonkeyPatch, value) -> None:
    one, two = AdapterStore(url), AdapterStore(url)
    folder = two._shelf.folder
    listed_before = folder.names("0" * 40)
    one.put("a", adapter(1.0))
    with monkeypatch.context() as patch:
        patch.setattr(folder, "names", lambda user: listed_before)
        two.put("a", adapter(2.0))
    assert [v.number for v in one.versions("a")] == [1, 1]
    assert value(one.get("a")) == value(one.get("a", version=1)) == 2  # the later one
    assert one.put("a", adapter(3.0)).number == 2
    assert one.verify().versions == 3


def test_headers_are_fetched_in_groups(url: str, adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "AT_ONCE", 2)
    store = AdapterStore(url)
    files = [(user_hash(user), store.put(user, adapter()).file_name) for user in ("a", "b", "c", "d", "e")]
    files.insert(2, (user_hash("nobody"), files[0][1]))
    found = list(store._shelf.folder.starts(files, 8))
    assert [start and len(start) for start in found] == [8, 8, None, 8, 8, 8]


def test_a_network_error_is_not_taken_for_a_missing_file(url: str, adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AdapterStore(url)
    store.put("a", adapter())

    def fail(self, path, start=None, end=None, **kwargs):
        raise ConnectionError("the network is gone")

    monkeypatch.setattr(CachingFileSystem, "cat_file", fail)
    for call in (lambda: list(store.list()), lambda: store.get("a"), lambda: store.header("a")):
        with pytest.raises(StoreAccessError, match=r"cannot be read \(the network is gone\)"):
            call()


def test_whether_it_can_be_written(url: str) -> None:
    store = AdapterStore(url)
    store.check_writable()
    CachingFileSystem.fails_on = ".writable"
    with pytest.raises(StoreAccessError, match="cannot be written"):
        store.check_writable()
    fs, root = fsspec.core.url_to_fs(url)
    assert [path.rsplit("/", 1)[-1] for path in fs.find(root)] == ["store.json"]


def test_damage_is_found(url: str, adapter) -> None:
    store = AdapterStore(url)
    store.put("a", adapter())
    fs, root = fsspec.core.url_to_fs(url)
    (path,) = [path for path in fs.find(root) if path.endswith(".safetensors")]
    fs.pipe_file(path, fs.cat_file(path)[:-1])
    with pytest.raises(AdapterFileError, match="is damaged"):
        store.get("a")
    assert len(store.verify().problems) == 1
