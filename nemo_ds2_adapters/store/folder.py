"""Where a store's files lie: a prefix of an object store."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from nemo_ds2_adapters.adapters.users import HASH_LENGTH
from nemo_ds2_adapters.errors import AdapterFileError, InputError, StoreAccessError
from nemo_ds2_adapters.store.connection import connect, explained
from nemo_ds2_adapters.store.version import versions_among

FORMAT = "nemo_ds2_adapters store"
FORMAT_VERSION = 2  # version 1 held `.pt` files alone
FORMAT_FILE = "store.json"
FORMAT_TEXT = json.dumps({"format": FORMAT, "version": FORMAT_VERSION})
USERS = "users"
CACHE = "cache"  # in a user's folder: whatever else is kept about the person
CLAIM = re.compile(r"(\d{6,})\.claim")  # in a user's folder at an object store: a writer has this number
SHARD_LENGTH = 2  # first hexadecimal digits of a user's hash: 256 directories
SHARD_NAME = re.compile(f"[0-9a-f]{{{SHARD_LENGTH}}}")
USER_NAME = re.compile(f"[0-9a-f]{{{HASH_LENGTH}}}")
AT_ONCE = 64  # files fetched at the same time


class Folder:
    """`users/<first digits of hash>/<hash>/` for each user; a user is a hash here.

    Object stores put an object there whole or not at all, so a killed writer leaves the old version or the new one.
    There are no locks; writers of one user at the same time get different numbers by conditional writes. A local
    directory (`local.LocalFolder`) has locks, fsync and permissions as well.

    `is_old` says that an older version of this package made the store, which would not see what this one writes.

    Every method raises `StoreAccessError`, which names path and reason, if the place cannot be read or written.
    """

    is_old = False

    def __init__(self, url: str) -> None:
        """Args: `s3://bucket/prefix`, or of another object store.

        Raises:
            InputError: no such protocol, the package that speaks it is not installed, or an endpoint that is no URL.
        """
        self.label = url.rstrip("/")
        self._store = connect(url)

    def __str__(self) -> str:
        return self.label

    def format_text(self) -> str | None:
        """Content of the file that marks a place as a store, None if there is none."""
        try:
            with explained(f"{self}/{FORMAT_FILE}", "read", but=FileNotFoundError):
                return self._store.get(FORMAT_FILE).bytes().to_bytes().decode(errors="replace")
        except FileNotFoundError:
            return None

    def is_free(self) -> bool:
        """Whether nothing is there but what another process makes of it just now."""
        with explained(f"{self}/", "read"):
            found = self._store.list_with_delimiter("")
        return {*found["common_prefixes"], *(file["path"] for file in found["objects"])} <= {FORMAT_FILE, USERS}

    def create(self, format_text: str) -> None:
        """Make an empty store, or mark an old one anew."""
        self._put(FORMAT_FILE, format_text.encode())

    def check_writable(self) -> None:
        """Write a file, and remove it."""
        path = f"{USERS}/.writable"
        self._put(path, b"yes")
        self._delete(path)

    def shards(self) -> list[str]:
        """The first digits of the users' hashes that occur."""
        with explained(f"{self}/{USERS}", "read"):
            found = self._store.list_with_delimiter(USERS)["common_prefixes"]
        return sorted(filter(SHARD_NAME.fullmatch, map(os.path.basename, found)))

    def users(self, shard: str) -> Iterator[tuple[str, list[str] | AdapterFileError]]:
        """The users of one shard with the names of their files, or why these cannot be read; from one listing."""
        names = defaultdict(list)
        for path in self._paths(f"{USERS}/{shard}"):
            user, name = path.split("/")[-2:]
            names[user].append(name)
        yield from sorted(names.items())

    def names(self, user: str) -> list[str]:
        """Names of what belongs to a user; none if there is no such user."""
        return sorted(map(os.path.basename, self._paths(_path(user))))

    def read(self, user: str, name: str) -> bytes | bytearray:
        """A file's content. Raises FileNotFoundError: there is none, perhaps not any more."""
        with explained(f"{self}/{_path(user, name)}", "read", but=FileNotFoundError):
            return self._store.get(_path(user, name)).bytes().to_bytes()

    def starts(self, files: list[tuple[str, str]], size: int) -> Iterator[bytes | AdapterFileError | None]:
        """The first `size` bytes of several users' files: why it cannot be read, or None, for one that is gone."""

        def fetch(file: tuple[str, str]) -> bytes | AdapterFileError | None:
            path = _path(*file)
            try:
                with explained(f"{self}/{path}", "read", but=FileNotFoundError):
                    return self._store.get_range(path, start=0, end=size).to_bytes()
            except FileNotFoundError:
                return None
            except AdapterFileError as error:
                return error

        if len(files) == 1:
            yield fetch(files[0])
            return
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for start in range(0, len(files), AT_ONCE):
                yield from pool.map(fetch, files[start : start + AT_ONCE])

    def write(self, user: str, name: str, data: bytes | bytearray) -> None:
        """Write a file: it is there whole, or not at all."""
        self._put(_path(user, name), data)

    @contextmanager
    def numbered(self, user: str) -> Iterator[tuple[int, list[str]]]:
        """The number of a user's next version, which no other writer gets, and the names of their files.

        Of several writers that put a claim on a number, an object store lets one through. Who comes so late that the
        number's version is there, and its claim perhaps withdrawn, sees the version. A writer that is killed leaves
        its claim; the number is skipped. Without conditional writes, two writers may get the same number.
        """
        while True:
            names = self.names(user)
            number = next_number(names)
            claim = f"{number:06d}.claim"
            try:
                if not self._create(_path(user, claim)):
                    continue
            except NotImplementedError:  # they are disabled
                yield number, names
                return
            names = self.names(user)
            if all(version.number < number for version in versions_among(names)):
                break
            self._delete(_path(user, claim))
        try:
            yield number, names
        except BaseException:
            with suppress(StoreAccessError):  # what stands above says more
                self._delete(_path(user, claim))
            raise

    def remove(self, user: str, names: list[str]) -> None:
        """Remove files, in this order; what is not there is skipped."""
        for name in names:
            self._delete(_path(user, name))

    def remove_user(self, user: str) -> bool:
        """Remove everything that belongs to a user; whether there was anything. Older copies that a bucket keeps are
        out of reach."""
        paths = self._paths(_path(user))
        if paths:
            with explained(f"{self}/{_path(user)}", "removed"):
                self._store.delete(paths)
        return bool(paths)

    def leftovers(self, names: list[str]) -> list[str]:
        """Which of a user's files nobody needs, such as those of a process that died while writing; to be asked while
        holding the lock."""
        newest = max((version.number for version in versions_among(names)), default=0)
        return [name for name in names if (claim := CLAIM.fullmatch(name)) and int(claim[1]) <= newest]

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

    def _paths(self, prefix: str) -> list[str]:
        with explained(f"{self}/{prefix}", "read"):
            return [found["path"] for found in self._store.list(prefix).collect()]

    def _put(self, path: str, data: bytes | bytearray) -> None:
        with explained(f"{self}/{path}", "written"):
            self._store.put(path, data, use_multipart=False)  # whose parts a killed writer would leave

    def _create(self, path: str) -> bool:
        """Put an empty object there; whether there was none. Raises NotImplementedError: it cannot be told."""
        from obstore.exceptions import AlreadyExistsError

        with explained(f"{self}/{path}", "written", but=(AlreadyExistsError, NotImplementedError)):
            try:
                self._store.put(path, b"", mode="create")
            except AlreadyExistsError:
                return False
        return True

    def _delete(self, path: str) -> None:
        with explained(f"{self}/{path}", "removed"), suppress(FileNotFoundError):
            self._store.delete(path)


def next_number(names: list[str]) -> int:
    """One more than the greatest number among a user's files that a version has, or a claim."""
    claims = [int(claim[1]) for name in names if (claim := CLAIM.fullmatch(name))]
    return 1 + max([0, *claims, *(version.number for version in versions_among(names))])


def _path(user: str, *names: str) -> str:
    return "/".join([USERS, user[:SHARD_LENGTH], user, *names])
