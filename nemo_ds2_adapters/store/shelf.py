"""The versions of all users' adapters as files: appended, never changed, the greatest number is the current one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from typing import TypeVar

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.errors import AdapterFileError, UnknownUserError, naming
from nemo_ds2_adapters.formats.reading import look_into_bytes
from nemo_ds2_adapters.formats.safetensors_file import Header, header_end, read, read_header
from nemo_ds2_adapters.store import words
from nemo_ds2_adapters.store.folder import FORMAT_TEXT, SHARD_LENGTH, Folder
from nemo_ds2_adapters.store.version import (
    OLD_SUFFIX,
    SUFFIX,
    Entry,
    Version,
    check_owner,
    checksum,
    entry,
    versions_among,
)

ATTEMPTS = 20  # at reading a file that another process may remove once it was listed
START = 16 * 1024  # bytes of a file in which its header lies, mostly

Found = TypeVar("Found")
OnError = Callable[[AdapterFileError], object]


class Shelf:
    """Readers take no lock: a file is there whole, and does not change. Writers of one user wait for each other."""

    def __init__(self, folder: Folder, keep_versions: int | None) -> None:
        """Args: where the files lie, and how many versions of each user to keep, None for all."""
        self.folder = folder
        self.keep_versions = keep_versions

    def versions(self, user_id: str) -> list[Version]:
        """A user's versions, oldest first."""
        return versions_among(self.folder.names(user_hash(user_id)))

    def find(self, user_id: str, number: int | None = None) -> Version:
        """A user's version of this number, or the current one. Raises UnknownUserError: there is none."""
        return self._find(user_hash(user_id), f"user {user_id!r}", number)

    def before_current(self, user_id: str) -> Version:
        """The version that was current before the current one; a version that repeats an older one counts as that."""
        current = self.find(user_id)
        versions = self.versions(user_id)
        origin = next(v for v in versions if v.sha256 == current.sha256)
        if origin == versions[0]:
            raise UnknownUserError(
                f"{self.folder}: user {user_id!r} has no version before {current.number}"
                + (f", which repeats {origin.number}" if origin != current else "")
            )
        return versions[versions.index(origin) - 1]

    def read(self, user_id: str, number: int | None = None) -> tuple[Version, bytes | bytearray, Adapter]:
        """A user's version of this number, or the current one, its file, and its adapter as by `read_version`."""
        user, label = user_hash(user_id), f"user {user_id!r}"
        version, data = self._first(user, label, number, lambda v: self.folder.read(user, v.file_name))
        return version, data, read_version(data, version, user, f"{self.folder}, {label}, version {version.number}")

    def header(self, user_id: str, number: int | None = None) -> Header:
        """What a version says of itself; raises what `read` does, but the weights are not looked at."""
        user, label = user_hash(user_id), f"user {user_id!r}"
        return self._first(user, label, number, partial(self._header, user, label))[1]

    def append(self, user_id: str, data: bytes, suffix: str = SUFFIX) -> Version:
        """Add a version; one step makes it current. The caller holds the lock."""
        user = user_hash(user_id)
        with self.folder.numbered(user) as (number, names):
            version = Version.now(data, number, suffix)
            self.keep(user_id, data, version)
        if self.keep_versions is not None:
            self.remove(user_id, [*versions_among(names), version][: -self.keep_versions])
        self.folder.remove(user, self.folder.leftovers([*names, version.file_name]))
        return version

    def keep(self, user_id: str, data: bytes, version: Version) -> None:
        """Add a version of this number and time. The caller holds the lock."""
        if self.folder.is_old:  # the program that made it would not see these files
            self.folder.create(FORMAT_TEXT)
            self.folder.is_old = False
        self.folder.write(user_hash(user_id), version.file_name, data)

    def remove(self, user_id: str, versions: list[Version]) -> None:
        """Remove versions, oldest first: an interrupted removal leaves the newest. The caller holds the lock."""
        user = user_hash(user_id)
        self.folder.remove(user, [name for v in sorted(versions) for name in (v.file_name, v.old_index_name)])
        names = self.folder.names(user)
        if set(names) == set(self.folder.leftovers(names)):
            self.folder.remove_user(user)

    def entries(self, since: datetime | None = None, on_error: OnError | None = None) -> Iterator[Entry]:
        """What the users' current versions that were stored since then say of themselves, in no particular order.

        `on_error` is called with why a version cannot be read; without it, the first such AdapterFileError is raised.
        """
        complain = on_error or _raise
        for shard in self.folder.shards():
            try:
                users = list(self.folder.users(shard))
            except AdapterFileError as error:
                complain(error)
                continue
            current = []
            for user, names in users:
                if isinstance(names, AdapterFileError):
                    complain(names)
                elif (versions := versions_among(names)) and (since is None or versions[-1].stored >= since):
                    current.append((user, versions[-1]))
            starts = self.folder.starts([(user, version.file_name) for user, version in current], START)
            for (user, version), start in zip(current, starts):
                label = f"the user with hash {user}"
                try:
                    try:
                        header = self._header(user, label, version, start)
                    except FileNotFoundError:  # replaced since it was listed, or erased
                        version, header = self._first(user, label, None, partial(self._header, user, label))
                except UnknownUserError:
                    continue
                except AdapterFileError as error:
                    complain(error)
                else:
                    yield entry(version, header)

    def words(self, user_id: str) -> tuple[str, ...]:
        """A user's words, none if nobody put any; checked (AdapterFileError)."""
        user = user_hash(user_id)
        try:
            data = self.folder.read(user, words.FILE)
        except FileNotFoundError:
            return ()
        return words.from_bytes(data, user, f"{self.folder}, words of user {user_id!r}")

    def keep_words(self, user_id: str, file: bytes | None) -> None:
        """Replace a user's words by those of a file, or remove them. The caller holds the lock."""
        user = user_hash(user_id)
        if file is not None:
            self.folder.write(user, words.FILE, file)
            return
        self.folder.remove(user, [name for name in self.folder.names(user) if name == words.FILE])
        if not self.folder.names(user):
            self.folder.remove_user(user)

    @contextmanager
    def lock(self, *user_ids: str) -> Iterator[None]:
        """Keep other writers from these users. Raises StoreBusyError: another process holds the lock for too long."""
        # One lock for each shard, and always in the same order, or two processes could wait for each other.
        by_shard = {user_hash(user_id)[:SHARD_LENGTH]: user_hash(user_id) for user_id in user_ids}
        with ExitStack() as locks:
            for shard in sorted(by_shard):
                locks.enter_context(self.folder.lock(by_shard[shard]))
            yield

    def _header(
        self, user: str, label: str, version: Version, start: bytes | AdapterFileError | None = None
    ) -> Header:
        label = f"{self.folder}, {label}, version {version.number}"
        if version.suffix == OLD_SUFFIX:  # which tells nothing before it is read in full
            data = self.folder.read(user, version.file_name)
            old = read_version(data, version, user, label)
            return Header(old.name, old.module, old.config, old.info, old.parameters, len(data))
        if isinstance(start, AdapterFileError):
            raise start
        start = start or self._start(user, version, START)
        with naming(label):
            end = header_end(start)
        if end > len(start):
            start = self._start(user, version, end)
        header = read_header(start, label)
        check_owner(header.info, user, label)
        return header

    def _start(self, user: str, version: Version, size: int) -> bytes:
        (start,) = self.folder.starts([(user, version.file_name)], size)
        if isinstance(start, AdapterFileError):
            raise start
        if start is None:
            raise FileNotFoundError(version.file_name)
        return start

    def _first(
        self, user: str, label: str, number: int | None, look: Callable[[Version], Found]
    ) -> tuple[Version, Found]:
        """What one finds in a version; if another process has removed it since it was listed, one looks again."""
        for _ in range(ATTEMPTS):
            version = self._find(user, label, number)
            try:
                return version, look(version)
            except FileNotFoundError:
                continue
        raise AdapterFileError(f"{self.folder}, {label}, version {version.number}: is listed, but cannot be read")

    def _find(self, user: str, label: str, number: int | None) -> Version:
        versions = versions_among(self.folder.names(user))
        if not versions:
            raise UnknownUserError(f"{self.folder}: there is no adapter of {label}")
        found = [v for v in versions if number in (None, v.number)]
        if not found:
            have = ", ".join(str(v.number) for v in versions[-10:])
            raise UnknownUserError(f"{self.folder}: {label} has no version {number}, the last ones are {have}")
        return found[-1]


def _raise(error: AdapterFileError) -> None:
    raise error


def read_version(data: bytes | bytearray, version: Version, user: str, label: str) -> Adapter:
    """The adapter that the bytes of a version of the user with this hash hold, with `StoredTensor`s for weights.

    Checksum, content and owner are checked (AdapterFileError).
    """
    found = checksum(data)
    if found != version.sha256:
        raise AdapterFileError(
            f"{label}: is damaged, its checksum is {found[:12]}..., expected {version.sha256[:12]}...; "
            f"rollback returns to an older version"
        )
    adapter = _only_adapter(data, label) if version.suffix == OLD_SUFFIX else read(data, label)
    check_owner(adapter.info, user, label)
    return adapter


def _only_adapter(data: bytes | bytearray, label: str) -> Adapter:
    adapters = look_into_bytes(bytes(data), label)
    if len(adapters) != 1:
        raise AdapterFileError(f"{label}: holds {len(adapters)} adapters, expected one")
    return next(iter(adapters.values()))
