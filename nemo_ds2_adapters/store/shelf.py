"""The versions of all users' adapters as files: appended, never changed, the greatest number is the current one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime

from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.errors import AdapterFileError, UnknownUserError
from nemo_ds2_adapters.formats.old_names import FileContents
from nemo_ds2_adapters.store.folder import SHARD_LENGTH, Folder
from nemo_ds2_adapters.store.index import Entry
from nemo_ds2_adapters.store.personal import read_personal
from nemo_ds2_adapters.store.version import Version, checksum, versions_among

ATTEMPTS = 20  # at reading a file that another process may remove once it was listed


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
        """A user's version of this number, or the current one.

        Raises:
            UnknownUserError: there is none.
        """
        return self._find(user_hash(user_id), number, f"user {user_id!r}")

    def before_current(self, user_id: str) -> Version:
        """The version that was current before the current one; a version that repeats an older one counts as that.

        Raises:
            UnknownUserError: there is none.
        """
        current = self.find(user_id)
        versions = self.versions(user_id)
        origin = next(v for v in versions if v.sha256 == current.sha256)
        if origin == versions[0]:
            raise UnknownUserError(
                f"{self.folder}: user {user_id!r} has no version before {current.number}"
                + (f", which repeats {origin.number}" if origin != current else "")
            )
        return versions[versions.index(origin) - 1]

    def read(self, user_id: str, number: int | None = None) -> tuple[Version, bytes]:
        """A user's version of this number, or the current one, and its file, compared with its checksum.

        Raises:
            UnknownUserError: there is none.
            AdapterFileError: the file is damaged.
        """
        return self._read(user_hash(user_id), number, f"user {user_id!r}")

    def contents(self, user_id: str, number: int | None = None) -> FileContents:
        """What a version holds; raises what `read` does."""
        return self.parse(user_id, *self.read(user_id, number))

    def parse(self, user_id: str, version: Version, data: bytes) -> FileContents:
        """What the bytes of a version hold.

        Raises:
            AdapterFileError: not an adapter of this user.
        """
        return read_personal(data, user_hash(user_id), f"{self.folder}, user {user_id!r}, version {version.number}")

    def append(self, user_id: str, contents: FileContents, data: bytes) -> Version:
        """Add a version, its bytes and what they hold; one step makes it current. The caller holds the lock."""
        user = user_hash(user_id)
        names = self.folder.names(user)
        versions = versions_among(names)
        version = Version.of(data, versions[-1].number + 1 if versions else 1)
        # First the entry that listing reads, then the file that makes the version exist.
        self.folder.note(user, version.index_name, Entry.of(version, contents, len(data)).to_bytes())
        self.folder.write(user, version.file_name, data)
        if self.keep_versions is not None:
            self.remove(user_id, [*versions, version][: -self.keep_versions])
        self.folder.remove(user, remains(self.folder, names))
        return version

    def remove(self, user_id: str, versions: list[Version]) -> None:
        """Remove versions, oldest first: an interrupted removal leaves the newest. The caller holds the lock."""
        user = user_hash(user_id)
        self.folder.remove(user, [name for v in sorted(versions) for name in (v.file_name, v.index_name)])
        names = self.folder.names(user)
        if set(names) == set(remains(self.folder, names)):
            self.folder.remove_user(user)

    def entries(self, since: datetime | None = None) -> Iterator[Entry]:
        """What the index says of every user's current version, in no particular order.

        Args:
            since: leave out what was stored before.

        Raises:
            AdapterFileError: a user's entry is missing, and so its adapter was opened, but that is damaged.
        """
        for shard in self.folder.shards():
            listed = [(user, versions_among(names)) for user, names in self.folder.shard(shard)]
            current = [(user, vs[-1]) for user, vs in listed if vs and (since is None or vs[-1].stored >= since)]
            index = self.folder.read_many([(user, version.index_name) for user, version in current])
            for (user, version), data in zip(current, index):
                entry = Entry.from_bytes(data, version, user) or self._new_entry(user)
                if entry is not None:
                    yield entry

    @contextmanager
    def lock(self, *user_ids: str) -> Iterator[None]:
        """Keep other writers from these users.

        Raises:
            StoreBusyError: another process holds the lock for too long.
        """
        # One lock for each shard, and always in the same order, or two processes could wait for each other.
        by_shard = {user_hash(user_id)[:SHARD_LENGTH]: user_hash(user_id) for user_id in user_ids}
        with ExitStack() as locks:
            for shard in sorted(by_shard):
                locks.enter_context(self.folder.lock(by_shard[shard]))
            yield

    def _read(self, user: str, number: int | None, label: str) -> tuple[Version, bytes]:
        for _ in range(ATTEMPTS):
            version = self._find(user, number, label)
            try:
                data = self.folder.read(user, version.file_name)
            except FileNotFoundError:
                continue  # removed since it was listed: look again
            check_sum(data, version, f"{self.folder}, {label}, version {version.number}")
            return version, data
        raise AdapterFileError(f"{self.folder}, {label}, version {version.number}: is listed, but cannot be read")

    def _find(self, user: str, number: int | None, label: str) -> Version:
        versions = versions_among(self.folder.names(user))
        if not versions:
            raise UnknownUserError(f"{self.folder}: there is no adapter of {label}")
        found = [v for v in versions if number in (None, v.number)]
        if not found:
            have = ", ".join(str(v.number) for v in versions[-10:])
            raise UnknownUserError(f"{self.folder}: {label} has no version {number}, the last ones are {have}")
        return found[-1]

    def _new_entry(self, user: str) -> Entry | None:
        label = f"the user with hash {user}"
        try:
            version, data = self._read(user, None, label)
        except UnknownUserError:
            return None  # erased since it was listed
        return Entry.of(version, read_personal(data, user, f"{self.folder}, {label}"), len(data))


def remains(folder: Folder, names: list[str]) -> list[str]:
    """Which of a user's files an interrupted write has left; to be asked while holding the lock."""
    entries = {version.index_name for version in versions_among(names)}
    return folder.leftovers(names) + [name for name in names if name.endswith(".json") and name not in entries]


def check_sum(data: bytes, version: Version, label: str) -> None:
    """Compare a file with the checksum in its name.

    Raises:
        AdapterFileError: they differ; begins with `label`.
    """
    found = checksum(data)
    if found != version.sha256:
        raise AdapterFileError(
            f"{label}: is damaged, its checksum is {found[:12]}..., expected {version.sha256[:12]}...; "
            f"rollback returns to an older version"
        )
