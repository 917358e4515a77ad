"""One stored version of one user's adapter, as its file name tells it."""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

FILE_NAME = re.compile(r"(\d{6,})-(\d{8}T\d{6}\.\d{6}Z)-([0-9a-f]{64})\.pt")


@dataclass(frozen=True, order=True)
class Version:
    """A version; the greatest one of a user is the current one.

    Number, time and checksum stand in the file's name, so they need no index, and two writers that cannot lock each
    other out still write two files.
    """

    number: int
    stored: datetime  # UTC
    sha256: str  # of the file's bytes, hexadecimal

    @classmethod
    def of(cls, data: bytes, number: int) -> "Version":
        """The version that these bytes, stored now, are."""
        return cls(number, datetime.now(UTC), checksum(data))

    @classmethod
    def parse(cls, file_name: str) -> "Version | None":
        """The version a file holds, None if it is another kind of file."""
        match = FILE_NAME.fullmatch(file_name)
        if match is None:
            return None
        number, stored, sha256 = match.groups()
        return cls(int(number), datetime.fromisoformat(stored), sha256)

    @property
    def file_name(self) -> str:
        """Name of the adapter file."""
        return f"{self._stem}.pt"

    @property
    def index_name(self) -> str:
        """Name of the index entry beside it."""
        return f"{self._stem}.json"

    @property
    def _stem(self) -> str:
        return f"{self.number:06d}-{self.stored:%Y%m%dT%H%M%S.%fZ}-{self.sha256}"


def checksum(data: bytes) -> str:
    """SHA-256 of some bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def versions_among(file_names: list[str]) -> list[Version]:
    """The versions that a user's files hold, oldest first."""
    return sorted(v for name in file_names if (v := Version.parse(name)) is not None)
