"""A store's files in a local directory: durable, atomic, locked between processes, readable by their owner only."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nemo_ds2_adapters.errors import AdapterFileError, StoreBusyError
from nemo_ds2_adapters.formats.atomic import write_atomically
from nemo_ds2_adapters.store.folder import CACHE, FORMAT_FILE, SHARD_LENGTH, SHARD_NAME, USER_NAME, USERS

LOCKS = "locks"
OWNER_ONLY = 0o600  # permissions of files
OWNER_ONLY_FOLDER = 0o700


class LocalFolder:
    """`users/<first digits of hash>/<hash>/` for each user, `locks/<first digits>.lock` for each shard of users.

    A file appears under its name only when its content is on the disk. A process that dies leaves at most a file
    that ends with `.tmp`, and the kernel frees its lock.
    """

    def __init__(self, root: Path, lock_timeout: float) -> None:
        """Args: the store's directory, and how many seconds to wait for another process."""
        self.root = root
        self.lock_timeout = lock_timeout

    def __str__(self) -> str:
        return str(self.root)

    def format_text(self) -> str | None:
        """Content of the file that marks a directory as a store, None if there is none."""
        try:
            return (self.root / FORMAT_FILE).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_free(self) -> bool:
        """Whether there is no such directory, or nothing in it but what another process makes of it just now."""
        if not self.root.exists():
            return True
        return self.root.is_dir() and all(
            path.name in (USERS, LOCKS) or path.name.startswith(f".{FORMAT_FILE}.") for path in self.root.iterdir()
        )

    def create(self, format_text: str) -> None:
        """Make an empty store."""
        for folder in (self.root, self.root / USERS, self.root / LOCKS):
            folder.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
        write_atomically(self.root / FORMAT_FILE, format_text.encode(), OWNER_ONLY)

    def shards(self) -> list[str]:
        """The first digits of the users' hashes that occur."""
        return sorted(filter(SHARD_NAME.fullmatch, os.listdir(self.root / USERS)))

    def shard(self, shard: str) -> Iterator[tuple[str, list[str]]]:
        """The users of one shard with the names of their files."""
        for user in sorted(filter(USER_NAME.fullmatch, os.listdir(self.root / USERS / shard))):
            yield user, self.names(user)

    def names(self, user: str) -> list[str]:
        """Names of what belongs to a user; none if there is no such user."""
        try:
            return os.listdir(self._of(user))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, user: str, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: there is none, perhaps not any more.
        """
        return (self._of(user) / name).read_bytes()

    def read_many(self, files: list[tuple[str, str]]) -> Iterator[bytes | None]:
        """The contents of several users' files, None for one that does not exist."""
        for user, name in files:
            try:
                yield self.read(user, name)
            except FileNotFoundError:
                yield None

    def write(self, user: str, name: str, data: bytes) -> None:
        """Write a file. It is there whole, even after a power failure, or not at all.

        Raises:
            AdapterFileError: the operating system refuses.
        """
        with _refusals_explained(self._of(user) / name) as path:
            self._make(user)
            write_atomically(path, data, OWNER_ONLY)

    def note(self, user: str, name: str, data: bytes) -> None:
        """Write what can be made again, without waiting for the disk: after a crash it may be there in part."""
        with _refusals_explained(self._of(user) / name) as path:
            self._make(user)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY), "wb") as file:
                file.write(data)

    def remove(self, user: str, names: list[str]) -> None:
        """Remove files, in this order; what is not there is skipped."""
        for name in names:
            (self._of(user) / name).unlink(missing_ok=True)
        if names:
            _sync(self._of(user))

    def remove_user(self, user: str) -> None:
        """Remove a user's folder with all that is in it."""
        folder = self._of(user)
        if folder.exists():
            shutil.rmtree(folder)
            _sync(folder.parent)

    def leftovers(self, names: list[str]) -> list[str]:
        """Which of a user's files a process left that died while writing; to be asked while holding the lock."""
        return [name for name in names if name.endswith(".tmp")]

    def cache_folder(self, user: str) -> Path:
        """A directory that goes with the user, made if it is not there."""
        with _refusals_explained(self._of(user) / CACHE) as folder:
            self._make(user)
            folder.mkdir(mode=OWNER_ONLY_FOLDER, exist_ok=True)
        return folder

    def restrict(self, user: str) -> list[str]:
        """Take from group and others what rights they have on a user's files; names of those that were changed."""
        folder = self._of(user)
        changed = []
        for path in (folder, *folder.rglob("*")):
            with suppress(FileNotFoundError):  # what is in the cache may go at any time
                mode = path.lstat().st_mode
                if mode & 0o077 and not path.is_symlink():
                    path.chmod(mode & 0o700)
                    changed.append(str(path.relative_to(self.root)))
        return changed

    @contextmanager
    def lock(self, user: str) -> Iterator[None]:
        """Keep other threads and processes from changing this user's shard.

        Raises:
            StoreBusyError: another one holds the lock for too long.
        """
        path = self.root / LOCKS / f"{user[:SHARD_LENGTH]}.lock"
        # Without flock there would be lock files that a killed process leaves locked: better none at all.
        lock = FileLock(path, self.lock_timeout, mode=OWNER_ONLY, poll_interval=0.005, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise StoreBusyError(
                f"{self.root}: another process has held {path.name} for {self.lock_timeout:g} s; try again, "
                f"or give a longer lock_timeout"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _of(self, user: str) -> Path:
        return self.root / USERS / user[:SHARD_LENGTH] / user

    def _make(self, user: str) -> None:
        folder = self._of(user)
        for new in [p for p in (folder.parent, folder) if not p.exists()]:
            new.mkdir(mode=OWNER_ONLY_FOLDER, exist_ok=True)
            _sync(new.parent)


@contextmanager
def _refusals_explained(path: Path) -> Iterator[Path]:
    try:
        yield path
    except OSError as error:
        raise AdapterFileError(f"{path}: cannot be written ({error.strerror})") from error


def _sync(folder: Path) -> None:
    """Bring a directory's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
