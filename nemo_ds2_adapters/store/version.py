"""One stored version of one user's adapter: its file's name, whose it is, and what a list says of it."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from nemo_ds2_adapters.adapters.adapter import Adapter, Info
from nemo_ds2_adapters.adapters.users import adapter_name_for_user, user_hash
from nemo_ds2_adapters.errors import AdapterFileError, InputError, UserIdError
from nemo_ds2_adapters.formats.safetensors_file import SUFFIX, Header

OLD_SUFFIX = ".pt"  # of the versions that were stored before 0.2, in the format of `save_adapter`
FILE_NAME = re.compile(r"(\d{6,})-(\d{8}T\d{6}\.\d{6}Z)-([0-9a-f]{64})(\.safetensors|\.pt)")


@dataclass(frozen=True, order=True)
class Version:
    """A version; the greatest one of a user is the current one.

    Number, time and checksum stand in the file's name, so they need no index, and two writers that cannot lock each
    other out still write two files.
    """

    number: int
    stored: datetime  # UTC
    sha256: str  # of the file's bytes, hexadecimal
    suffix: str = SUFFIX

    @classmethod
    def now(cls, data: bytes | bytearray, number: int, suffix: str = SUFFIX) -> "Version":
        """The version that these bytes, stored now, are."""
        return cls(number, datetime.now(UTC), checksum(data), suffix)

    @classmethod
    def parse(cls, file_name: str) -> "Version | None":
        """The version a file holds, None if it is another kind of file."""
        match = FILE_NAME.fullmatch(file_name)
        if match is None:
            return None
        number, stored, sha256, suffix = match.groups()
        try:
            return cls(int(number), datetime.fromisoformat(stored), sha256, suffix)
        except ValueError:  # the 31st of February, or a number of thousands of digits
            return None

    @property
    def file_name(self) -> str:
        """Name of the adapter file."""
        return f"{self._stem}{self.suffix}"

    @property
    def old_index_name(self) -> str:
        """Name of the index entry that lay beside it before 0.2; nobody reads it any more."""
        return f"{self._stem}.json"

    @property
    def _stem(self) -> str:
        time = self.stored.isoformat(timespec="microseconds").replace("-", "").replace(":", "").split("+")[0]
        return f"{self.number:06d}-{time}Z-{self.sha256}"


@dataclass(frozen=True)
class Entry:
    """What a store can say about one user's current adapter without reading its weights."""

    user_id: str
    version: int
    stored: str  # ISO 8601, UTC
    created: str  # ISO 8601, UTC: when the adapter was saved, perhaps long before it was stored
    fingerprint: str  # of the base it was made for
    module: str  # '' is the model's default module
    type: str  # path of the adapter's class
    parameters: int
    size: int  # of the file, bytes


def entry(version: Version, header: Header) -> Entry:
    """A line of the list, of a file that has an owner and a base."""
    assert header.info is not None
    return Entry(
        user_id=header.info.metadata["user_id"],
        version=version.number,
        stored=version.stored.isoformat(),
        created=header.info.created,
        fingerprint=header.info.fingerprint,
        module=header.module,
        type=header.config["_target_"],
        parameters=header.parameters,
        size=header.size,
    )


def checksum(data: bytes | bytearray) -> str:
    """SHA-256 of some bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def versions_among(file_names: Iterable[str]) -> list[Version]:
    """The versions that a user's files hold, oldest first."""
    return sorted(v for name in file_names if (v := Version.parse(name)) is not None)


def personal(adapter: Adapter, user_id: str, metadata: Mapping[str, Any], label: str) -> Adapter:
    """An adapter of a file or a model, `label`, as a user's own, with these metadata added to its own.

    Raises InputError: it is another user's, or does not say for which base it was made.
    """
    if adapter.info is None:
        raise InputError(
            f"{label}: is in a format that does not say for which base an adapter was made; load it into its base "
            f"model with load_adapter, and put the model's adapter"
        )
    owner = adapter.metadata.get("user_id", user_id)
    if owner != user_id:
        raise InputError(f"{label}: is the adapter of {owner!r}, not of {user_id!r}: use copy or rename")
    return owned(adapter, user_id, {**adapter.metadata, **metadata})


def owned(adapter: Adapter, user_id: str, metadata: Mapping[str, Any]) -> Adapter:
    """A stored adapter as a user's own, with these metadata and no trace of another user."""
    assert adapter.info is not None
    info = replace(adapter.info, metadata={**metadata, "user_id": user_id})
    return replace(adapter, name=adapter_name_for_user(user_id), info=info)


def check_owner(info: Info | None, user: str, label: str) -> None:
    """Make sure (AdapterFileError) that what lies in the folder of the user with this hash is theirs."""
    if info is None:
        raise AdapterFileError(f"{label}: does not say for which base the adapter was made")
    try:
        owner = user_hash(info.metadata.get("user_id"))  # type: ignore[arg-type]
    except UserIdError as error:
        raise AdapterFileError(f"{label}: its metadata have no proper user id") from error
    if owner != user:
        raise AdapterFileError(f"{label}: is of another user, or lies in a wrong place")
