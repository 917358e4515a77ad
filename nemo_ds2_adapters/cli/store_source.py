"""The adapters in a store, by user id."""

import logging
from collections.abc import Sequence
from datetime import datetime

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.cli.source import Findings, Progress, Row
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.reading import OURS
from nemo_ds2_adapters.store.store import AdapterStore

logger = logging.getLogger(__name__)


class StoreSource:
    """A store; where a model or a file has an adapter's name, this has the user id."""

    format = OURS

    def __init__(self, store: AdapterStore) -> None:
        self.store = store

    def rows(self, prefix: str, since: datetime | None) -> list[Row]:
        """User id, version, time of storing, type, parameters, size in bytes, fingerprint of the base.

        Of an adapter that cannot be read, a warning is logged, and the others are listed.
        """
        entries = self.store.entries(prefix, since, on_error=lambda error: logger.warning("%s", error))
        return [
            {
                "user_id": entry.user_id,
                "version": entry.version,
                "stored": entry.stored,
                "type": entry.type,
                "parameters": entry.parameters,
                "bytes": entry.size,
                "base": entry.fingerprint,
            }
            for entry in sorted(entries, key=lambda entry: entry.user_id)
        ]

    def get(self, name: str, version: int | None) -> Adapter:
        """A user's adapter."""
        return self.store.get(name, version)

    def take(self, adapter: Adapter, label: str, name: str | None, any_base: bool) -> str:
        """Put an adapter in for a user, by default the one whom it says it is of."""
        user_id = adapter.metadata.get("user_id") if name is None else name
        if user_id is None:
            raise InputError(f"{label}: does not say whose it is, give the user id with --as")
        if adapter.info is None:
            raise InputError(f"{label}: does not say for which base it was made: give its base with --base")
        self.store.put(user_id, adapter)
        return user_id

    def rename(self, old: str, new: str) -> None:
        """Move all of a user's versions to another id."""
        self.store.rename(old, new)

    def versions(self, name: str) -> list[Row]:
        """A user's versions, oldest first."""
        return [
            {"version": version.number, "time": version.stored.isoformat(), "sha256": version.sha256}
            for version in self.store.versions(name)
        ]

    def erase(self, name: str) -> bool:
        """Remove everything of a user, also what is cached."""
        return self.store.erase(name)

    def delete(self, name: str, version: int | None) -> None:
        """Remove a user's adapter, or one version."""
        self.store.delete(name, version)

    def average(self, names: Sequence[str], target: str, weights: Sequence[float] | None) -> None:
        """Give a user the weighted mean of several users' adapters."""
        self.store.average(names, target, weights)

    def verify(self, on_progress: Progress) -> Findings:
        """Check every version of every user, mend permissions, remove what killed writers left."""
        report = self.store.verify(on_progress)
        return Findings(report.versions, report.repaired, report.problems)
