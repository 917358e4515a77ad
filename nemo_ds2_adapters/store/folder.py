"""Where a store's files lie: an object store, or another file system that fsspec knows."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from nemo_ds2_adapters.adapters.users import HASH_LENGTH
from nemo_ds2_adapters.errors import AdapterFileError, InputError, StoreAccessError

FORMAT = "nemo_ds2_adapters store"
FORMAT_VERSION = 2  # version 1 held `.pt` files alone
FORMAT_FILE = "store.json"
FORMAT_TEXT = json.dumps({"format": FORMAT, "version": FORMAT_VERSION})
USERS = "users"
CACHE = "cache"  # in a user's folder: whatever else is kept about the person
SHARD_LENGTH = 2  # first hexadecimal digits of a user's hash: 256 directories
SHARD_NAME = re.compile(f"[0-9a-f]{{{SHARD_LENGTH}}}")
USER_NAME = re.compile(f"[0-9a-f]{{{HASH_LENGTH}}}")
AT_ONCE = 256  # files fetched by one call, at the same time where the file system can


class Folder:
    """`users/<first digits of hash>/<hash>/` for each user; a user is a hash here.

    Object stores put an object there whole or not at all, so a killed writer leaves the old version or the new one.
    Two writers of one user at the same time write two files with the same number; the later one is current. A local
    directory (`local.LocalFolder`) has locks, fsync and permissions as well.

    `is_old` says that an older version of this package made the store, which would not see what this one writes.

    Every method raises `StoreAccessError`, which names path and reason, if the place cannot be read or written.
    """

    is_old = False

    def __init__(self, url: str) -> None:
        """Args: an fsspec URL.

        Raises:
            InputError: fsspec does not know the protocol, or its package is not installed.
        """
        import fsspec

        self.label = url
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise InputError(f"store {url}: {error}") from error

    def __str__(self) -> str:
        return self.label

    def format_text(self) -> str | None:
        """Content of the file that marks a place as a store, None if there is none."""
        with self._explained(FORMAT_FILE, "read"):
            try:
                return self._fs.cat_file(f"{self._root}/{FORMAT_FILE}").decode(errors="replace")
            except FileNotFoundError:
                return None

    def is_free(self) -> bool:
        """Whether nothing is there."""
        return not self._list("")

    def create(self, format_text: str) -> None:
        """Make an empty store, or mark an old one anew."""
        with self._explained(FORMAT_FILE, "written"):
            self._fs.pipe_file(f"{self._root}/{FORMAT_FILE}", format_text.encode())

    def check_writable(self) -> None:
        """Write a file, and remove it."""
        with self._explained(USERS, "written"):
            path = f"{self._root}/{USERS}/.writable"
            self._fs.pipe_file(path, b"yes")
            self._fs.rm_file(path)

    def shards(self) -> list[str]:
        """The first digits of the users' hashes that occur."""
        return sorted(filter(SHARD_NAME.fullmatch, self._list(USERS)))

    def users(self, shard: str) -> Iterator[tuple[str, list[str] | AdapterFileError]]:
        """The users of one shard with the names of their files, or why these cannot be read; from one listing."""
        names = defaultdict(list)
        with self._explained(f"{USERS}/{shard}", "read"):
            self._fs.invalidate_cache()
            for path in self._fs.find(f"{self._root}/{USERS}/{shard}"):
                user, name = path.split("/")[-2:]
                names[user].append(name)
        yield from sorted(names.items())

    def names(self, user: str) -> list[str]:
        """Names of what belongs to a user; none if there is no such user."""
        return self._list(_path(user))

    def read(self, user: str, name: str) -> bytes | bytearray:
        """A file's content. Raises FileNotFoundError: there is none, perhaps not any more."""
        with self._explained(_path(user, name), "read", but=FileNotFoundError):
            return self._fs.cat_file(f"{self._root}/{_path(user, name)}")

    def starts(self, files: list[tuple[str, str]], size: int) -> Iterator[bytes | AdapterFileError | None]:
        """The first `size` bytes of several users' files: why it cannot be read, or None, for one that is gone."""
        paths = [f"{self._root}/{_path(user, name)}" for user, name in files]
        for start in range(0, len(paths), AT_ONCE):
            group = paths[start : start + AT_ONCE]
            found = self._fs.cat_ranges(group, 0, size, on_error="return")
            for path, content in zip(group, found):
                if isinstance(content, FileNotFoundError):
                    yield None
                elif isinstance(content, Exception):
                    yield _refusal(path, "read", content)
                else:
                    yield content

    def write(self, user: str, name: str, data: bytes | bytearray) -> None:
        """Write a file, with one call: it is there whole or, where that is atomic, not at all."""
        with self._explained(_path(user, name), "written"):
            self._fs.pipe_file(f"{self._root}/{_path(user, name)}", data)

    def remove(self, user: str, names: list[str]) -> None:
        """Remove files, in this order; what is not there is skipped."""
        present = set(self.names(user)) if names else set()
        for name in [name for name in names if name in present]:
            with self._explained(_path(user, name), "removed"):
                self._fs.rm_file(f"{self._root}/{_path(user, name)}")

    def remove_user(self, user: str) -> bool:
        """Remove everything that belongs to a user; whether there was anything. Older copies that a bucket keeps are
        out of reach."""
        found = bool(self.names(user))
        if found:
            with self._explained(_path(user), "removed"):
                self._fs.rm(f"{self._root}/{_path(user)}", recursive=True)
        return found

    def leftovers(self, names: list[str]) -> list[str]:
        """Which of a user's files a process left that died while writing; to be asked while holding the lock."""
        return []  # a file is written with one call, under its name

    def sweep_cache(self, user: str) -> list[str]:
        """Remove what died writers left in a user's cache; the names."""
        return []  # there is none

    def restrict(self, user: str) -> list[str]:
        """Make a user's files readable by their owner only; names of those that were not."""
        return []  # who may read is set on the bucket

    def cached(self, name: str) -> Iterator[Path]:
        """What is called so in users' cache folders."""
        return iter(())  # there are none

    def cache_folder(self, user: str, create: bool) -> Path:
        """A local directory that goes with a user. Raises InputError: the place is not local."""
        raise InputError(f"store {self}: only a store in a local directory can hold a user's cache")

    def lock(self, user: str) -> AbstractContextManager[None]:
        """Keep others from changing what belongs to this user, as far as the place allows: here it does not."""
        return nullcontext()

    def _list(self, path: str) -> list[str]:
        with self._explained(path, "read"):
            self._fs.invalidate_cache()  # of listings: another process may have written
            try:
                return sorted(entry.rsplit("/", 1)[-1] for entry in self._fs.ls(f"{self._root}/{path}", detail=False))
            except FileNotFoundError:
                return []

    @contextmanager
    def _explained(self, path: str, verb: str, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
        try:
            yield
        except but:
            raise
        except Exception as error:  # each file system has its own
            raise _refusal(f"{self}/{path}", verb, error) from error


def _path(user: str, *names: str) -> str:
    return "/".join([USERS, user[:SHARD_LENGTH], user, *names])


def _refusal(path: str, verb: str, error: Exception) -> StoreAccessError:
    return StoreAccessError(f"{path}: cannot be {verb} ({error})")
