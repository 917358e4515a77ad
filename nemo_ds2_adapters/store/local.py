"""A store's files in a local directory: durable, atomic, locked between processes, readable by their owner only."""

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from nemo_ds2_adapters.errors import AdapterFileError, StoreAccessError, StoreBusyError
from nemo_ds2_adapters.formats.atomic import write_atomically
from nemo_ds2_adapters.store.folder import (
    CACHE,
    FORMAT_FILE,
    SHARD_LENGTH,
    SHARD_NAME,
    USER_NAME,
    USERS,
    Folder,
    next_number,
)

LOCKS = "locks"
OWNER_ONLY = 0o600  # permissions of files
OWNER_ONLY_FOLDER = 0o700
TEMPORARY = ".tmp"  # how files end that are not finished
Text = TypeVar("Text", str, Path)
OLD = 86400.0  # seconds after which nobody writes a file of the cache any more, which no lock guards


class LocalFolder(Folder):
    """A directory with `locks/<first digits>.lock` for each shard of users beside `users/`.

    A file appears under its name only when its content is on the disk. A process that dies leaves at most a file
    that ends with `.tmp`, and the kernel frees its lock. A user's folder, or a file in it, that is a symbolic link is
    refused: nothing is read, written or removed elsewhere.
    """

    def __init__(self, root: Path, lock_timeout: float) -> None:
        """Args: the store's directory, and how many seconds to wait for another process."""
        self.label = str(root)
        self.root = root
        self._users = f"{root}/{USERS}"
        self.lock_timeout = lock_timeout

    def format_text(self) -> str | None:
        with _explained(self.root / FORMAT_FILE, "read") as path:
            try:
                return path.read_text(encoding="utf-8", errors="replace")
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
        with _explained(self.root, "made"):
            for folder in (self.root, self.root / USERS, self.root / LOCKS):
                folder.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
        _write(self.root / FORMAT_FILE, format_text.encode())

    def check_writable(self) -> None:
        for folder in (self.root / USERS, self.root / LOCKS):
            with _explained(folder / f".{os.getpid()}{TEMPORARY}", "written") as probe:
                _write(probe, b"yes")
                probe.unlink(missing_ok=True)

    def shards(self) -> list[str]:
        with _explained(self._users, "read") as folder:
            return sorted(filter(SHARD_NAME.fullmatch, os.listdir(folder)))

    def users(self, shard: str) -> Iterator[tuple[str, list[str] | AdapterFileError]]:
        with _explained(f"{self._users}/{shard}", "read") as folder:
            _check_no_link(folder)
            with os.scandir(folder) as found:
                users = sorted((e.name, e.is_symlink()) for e in found if USER_NAME.fullmatch(e.name))
        for user, is_link in users:
            try:
                yield user, self.names(user) if is_link else self._listed(f"{folder}/{user}")
            except AdapterFileError as error:
                yield user, error

    def names(self, user: str) -> list[str]:
        with _explained(self._of(user), "read") as folder, suppress(FileNotFoundError, NotADirectoryError):
            _check_no_link(self._shard_of(user))
            _check_no_link(folder)
        return self._listed(self._of(user))

    def _listed(self, folder: str) -> list[str]:
        with _explained(folder, "read"), suppress(FileNotFoundError, NotADirectoryError):
            return os.listdir(folder)
        return []

    def read(self, user: str, name: str) -> bytearray:
        with self._file(user, name) as descriptor:
            data = bytearray(os.fstat(descriptor).st_size)
            del data[os.readv(descriptor, [data]) :]
        return data

    def starts(self, files: list[tuple[str, str]], size: int) -> Iterator[bytes | AdapterFileError | None]:
        for user, name in files:
            try:
                with self._file(user, name) as descriptor:
                    yield os.read(descriptor, size)
            except FileNotFoundError:
                yield None
            except AdapterFileError as error:
                yield error

    def write(self, user: str, name: str, data: bytes | bytearray) -> None:
        """Write a file. It is there whole, even after a power failure, or not at all."""
        folder = self._of(user)
        made = self._make(user)
        try:
            _write(f"{folder}/{name}", data)
        except BaseException:
            for new in reversed(made):
                with suppress(OSError):  # what stands above says more
                    os.rmdir(new)
            raise

    @contextmanager
    def numbered(self, user: str) -> Iterator[tuple[int, list[str]]]:
        names = self.names(user)
        yield next_number(names), names  # the lock keeps it from others

    def remove(self, user: str, names: list[str]) -> None:
        for name in names:
            with _explained(f"{self._of(user)}/{name}", "removed") as path, suppress(FileNotFoundError):
                os.unlink(path)
        if names:
            with _explained(self._of(user), "written") as folder:
                _sync(folder)

    def remove_user(self, user: str) -> bool:
        """Remove a user's folder with all that is in it; of a link, the link."""
        with _explained(self._of(user), "removed") as folder:
            try:
                _check_no_link(self._shard_of(user))
                is_folder = stat.S_ISDIR(os.lstat(folder).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False
            if is_folder:
                shutil.rmtree(folder)
            else:
                os.unlink(folder)
            _sync(self._shard_of(user))
        return True

    def leftovers(self, names: list[str]) -> list[str]:
        return [name for name in names if name.endswith(TEMPORARY)]

    def sweep_cache(self, user: str) -> list[str]:
        swept = []
        with suppress(FileNotFoundError, NotADirectoryError):
            _check_no_link(f"{self._of(user)}/{CACHE}")
        for folder, _, names in os.walk(f"{self._of(user)}/{CACHE}"):
            for path in [f"{folder}/{name}" for name in names if name.endswith(TEMPORARY)]:
                with _explained(path, "removed"), suppress(FileNotFoundError):
                    if os.lstat(path).st_mtime < time.time() - OLD:
                        os.unlink(path)
                        swept.append(os.path.relpath(path, self._of(user)))
        return swept

    def restrict(self, user: str) -> list[str]:
        changed = []
        for folder, _, names in os.walk(self._of(user)):
            for path in (folder, *(f"{folder}/{name}" for name in names)):
                with _explained(path, "changed"), suppress(FileNotFoundError):  # what is cached may go at any time
                    mode = os.lstat(path).st_mode
                    if mode & 0o077 and not stat.S_ISLNK(mode):
                        os.chmod(path, stat.S_IMODE(mode) & 0o700)
                        changed.append(os.path.relpath(path, self.root))
        return changed

    def cached(self, name: str) -> Iterator[Path]:
        for shard in self.shards():
            yield from sorted(Path(self._users, shard).glob(f"*/{CACHE}/{name}"))

    def cache_folder(self, user: str, create: bool) -> Path:
        """A directory that goes with the user, made if it is not there, unless it is only asked where it would be."""
        if not create:
            return Path(self._of(user), CACHE)
        self._make(user)
        with _explained(f"{self._of(user)}/{CACHE}", "written") as folder:
            with suppress(FileExistsError):
                os.mkdir(folder, OWNER_ONLY_FOLDER)
            _check_no_link(folder)
        return Path(folder)

    @contextmanager
    def lock(self, user: str) -> Iterator[None]:
        """Keep other threads and processes from changing this user's shard, or raise StoreBusyError: one holds it too
        long."""
        from filelock import FileLock, Timeout  # which takes a while, and who only reads needs no lock

        path = self.root / LOCKS / f"{user[:SHARD_LENGTH]}.lock"
        # Without flock there would be lock files that a killed process leaves locked: better none at all.
        lock = FileLock(path, self.lock_timeout, mode=OWNER_ONLY, poll_interval=0.005, fallback_to_soft=False)
        try:
            with _explained(path, "locked", Timeout):
                lock.acquire()
        except NotImplementedError as error:
            raise StoreAccessError(f"{path}: cannot be locked, the file system has no flock") from error
        except Timeout as error:
            raise StoreBusyError(
                f"{self.root}: another process has held {path.name} for {self.lock_timeout:g} s; try again, "
                f"or give a longer lock_timeout"
            ) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _file(self, user: str, name: str) -> Iterator[int]:
        """A regular file, opened to be read; neither a link is followed nor a pipe waited for."""
        with _explained(f"{self._of(user)}/{name}", "read", FileNotFoundError) as path:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise AdapterFileError(f"{path}: is no regular file, remove it")
                yield descriptor
            finally:
                os.close(descriptor)

    def _shard_of(self, user: str) -> str:
        return f"{self._users}/{user[:SHARD_LENGTH]}"

    def _of(self, user: str) -> str:
        return f"{self._users}/{user[:SHARD_LENGTH]}/{user}"

    def _make(self, user: str) -> list[str]:
        """Make a user's folder; which directories are new."""
        made = []
        for folder in (self._shard_of(user), self._of(user)):
            with _explained(folder, "written"):
                try:
                    os.mkdir(folder, OWNER_ONLY_FOLDER)
                    made.append(folder)
                    _sync(os.path.dirname(folder))
                except FileExistsError:
                    _check_no_link(folder)
        return made


@contextmanager
def _explained(path: Text, verb: str, but: type[OSError] | tuple[()] = ()) -> Iterator[Text]:
    """Raises StoreAccessError: the operating system refuses."""
    try:
        yield path
    except but:
        raise
    except OSError as error:
        raise StoreAccessError(f"{path}: cannot be {verb} ({error.strerror})") from error


def _write(path: str | Path, data: bytes | bytearray) -> None:
    try:
        write_atomically(path, data, OWNER_ONLY)
    except AdapterFileError as error:
        raise StoreAccessError(str(error)) from error


def _check_no_link(folder: str) -> None:
    mode = os.lstat(folder).st_mode
    if stat.S_ISLNK(mode):
        raise AdapterFileError(f"{folder}: is a symbolic link, which a store does not follow: remove it")
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)


def _sync(folder: str) -> None:
    """Bring a directory's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
