"""What a store remembers about an adapter file beside it, so that listing need not open it.

Every entry can be made again from its adapter file. It is believed only if it is of this file and of this user.
"""

import json
from dataclasses import dataclass
from typing import Any

from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.errors import UserIdError
from nemo_ds2_adapters.formats.old_names import FileContents
from nemo_ds2_adapters.store.version import Version


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

    @classmethod
    def of(cls, version: Version, contents: FileContents, size: int) -> "Entry":
        """The entry for a file of `size` bytes with these contents."""
        (adapter,) = contents.adapters.values()
        return cls(
            user_id=contents.info["metadata"]["user_id"],
            version=version.number,
            stored=version.stored.isoformat(),
            created=contents.info["created"],
            fingerprint=contents.info["fingerprint"],
            module=adapter.prefix,
            type=adapter.config["_target_"],
            parameters=adapter.parameters,
            size=size,
        )

    def to_bytes(self) -> bytes:
        """The content of the index file."""
        return json.dumps(vars(self), ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes | None, version: Version, user: str) -> "Entry | None":
        """The entry in an index file; None if it is not one of this version and this user's hash."""
        try:
            values: Any = json.loads(data or b"")
            entry = cls(**values)
            fits = user_hash(entry.user_id) == user and entry.version == version.number
        except (ValueError, TypeError, UserIdError):
            return None  # the file was cut off or changed: the caller makes a new entry
        return entry if fits and entry.stored == version.stored.isoformat() else None
