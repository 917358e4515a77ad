"""What a store needs of the place where its files lie."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from nemo_ds2_adapters.adapters.users import HASH_LENGTH

FORMAT_FILE = "store.json"
USERS = "users"
CACHE = "cache"  # in a user's folder: whatever else is kept about the person
SHARD_LENGTH = 2  # first hexadecimal digits of a user's hash: 256 directories
SHARD_NAME = re.compile(f"[0-9a-f]{{{SHARD_LENGTH}}}")
USER_NAME = re.compile(f"[0-9a-f]{{{HASH_LENGTH}}}")


class Folder(Protocol):
    """Files by user and name. A user is a hash; what a place guarantees, its class says."""

    def format_text(self) -> str | None:
        """Content of the file that marks a place as a store, None if there is none."""

    def is_free(self) -> bool:
        """Whether nothing is there."""

    def create(self, format_text: str) -> None:
        """Make an empty store."""

    def shards(self) -> list[str]:
        """The first digits of the users' hashes that occur."""

    def shard(self, shard: str) -> Iterator[tuple[str, list[str]]]:
        """The users of one shard with the names of their files."""

    def names(self, user: str) -> list[str]:
        """Names of what belongs to a user; none if there is no such user."""

    def read(self, user: str, name: str) -> bytes:
        """A file's content. Raises FileNotFoundError: there is none, perhaps not any more."""

    def read_many(self, files: list[tuple[str, str]]) -> Iterator[bytes | None]:
        """The contents of several users' files, None for one that does not exist."""

    def write(self, user: str, name: str, data: bytes) -> None:
        """Write a file."""

    def note(self, user: str, name: str, data: bytes) -> None:
        """Write what can be made again: quickly rather than surely."""

    def remove(self, user: str, names: list[str]) -> None:
        """Remove files, in this order; what is not there is skipped."""

    def remove_user(self, user: str) -> None:
        """Remove everything that belongs to a user."""

    def leftovers(self, names: list[str]) -> list[str]:
        """Which of a user's files a process left that died while writing; to be asked while holding the lock."""

    def cache_folder(self, user: str) -> Path:
        """A local directory that goes with a user. Raises InputError: the place is not local."""

    def restrict(self, user: str) -> list[str]:
        """Make a user's files readable by their owner only; names of those that were not."""

    def lock(self, user: str) -> AbstractContextManager[None]:
        """Keep others from changing what belongs to this user, as far as the place allows."""
