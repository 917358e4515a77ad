"""A store's files in an object store or another file system that fsspec knows."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import fsspec

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.store.folder import FORMAT_FILE, SHARD_LENGTH, SHARD_NAME, USERS

AT_ONCE = 256  # files fetched by one call, at the same time where the file system can


class RemoteFolder:
    """The same layout as a local one, without locks, fsync and permissions.

    Object stores put an object there whole or not at all, so a killed writer leaves the old version or the new one.
    Two writers of one user at the same time write two files with the same number; the later one is current.
    """

    def __init__(self, url: str) -> None:
        """Args: an fsspec URL.

        Raises:
            InputError: fsspec does not know the protocol, or its package is not installed.
        """
        self.url = url
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise InputError(f"store {url}: {error}") from error

    def __str__(self) -> str:
        return self.url

    def format_text(self) -> str | None:
        """Content of the file that marks a place as a store, None if there is none."""
        try:
            return self._fs.cat_file(f"{self._root}/{FORMAT_FILE}").decode()
        except FileNotFoundError:
            return None

    def is_free(self) -> bool:
        """Whether nothing is there."""
        return not self._list(self._root)

    def create(self, format_text: str) -> None:
        """Make an empty store."""
        self._fs.pipe_file(f"{self._root}/{FORMAT_FILE}", format_text.encode())

    def shards(self) -> list[str]:
        """The first digits of the users' hashes that occur."""
        return list(filter(SHARD_NAME.fullmatch, self._list(f"{self._root}/{USERS}")))

    def shard(self, shard: str) -> Iterator[tuple[str, list[str]]]:
        """The users of one shard with the names of their files, from one listing."""
        folder = f"{self._root}/{USERS}/{shard}"
        self._fs.invalidate_cache()
        names = defaultdict(list)
        for path in self._fs.find(folder):
            user, name = path.split("/")[-2:]
            names[user].append(name)
        yield from sorted(names.items())

    def names(self, user: str) -> list[str]:
        """Names of what belongs to a user; none if there is no such user."""
        return self._list(self._of(user))

    def read(self, user: str, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: there is none, perhaps not any more.
        """
        return self._fs.cat_file(f"{self._of(user)}/{name}")

    def read_many(self, files: list[tuple[str, str]]) -> Iterator[bytes | None]:
        """The contents of several users' files, None for one that does not exist."""
        paths = [f"{self._of(user)}/{name}" for user, name in files]
        for start in range(0, len(paths), AT_ONCE):
            group = paths[start : start + AT_ONCE]
            for content in self._fs.cat_ranges(group, None, None, on_error="return"):
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
                yield content if isinstance(content, bytes) else None

    def write(self, user: str, name: str, data: bytes) -> None:
        """Write a file, with one call."""
        self._fs.pipe_file(f"{self._of(user)}/{name}", data)

    note = write

    def remove(self, user: str, names: list[str]) -> None:
        """Remove files, in this order; what is not there is skipped."""
        present = set(self.names(user))
        for name in names:
            if name in present:
                self._fs.rm_file(f"{self._of(user)}/{name}")

    def remove_user(self, user: str) -> None:
        """Remove everything that belongs to a user. Older copies that a bucket keeps are out of reach."""
        if self.names(user):
            self._fs.rm(self._of(user), recursive=True)

    def leftovers(self, names: list[str]) -> list[str]:
        """None: a file is written with one call, under its name."""
        return []

    def cache_folder(self, user: str) -> Path:
        """Raises InputError: an object store is no directory."""
        raise InputError(f"store {self.url}: only a store in a local directory can hold a user's cache")

    def restrict(self, user: str) -> list[str]:
        """None: who may read is set on the bucket."""
        return []

    def lock(self, user: str) -> AbstractContextManager[None]:
        """No lock: there is none."""
        return nullcontext()

    def _of(self, user: str) -> str:
        return f"{self._root}/{USERS}/{user[:SHARD_LENGTH]}/{user}"

    def _list(self, path: str) -> list[str]:
        self._fs.invalidate_cache()  # of listings: another process may have written
        try:
            return sorted(entry.rsplit("/", 1)[-1] for entry in self._fs.ls(path, detail=False))
        except FileNotFoundError:
            return []
