"""Reading and checking every file of a store, and mending what can be mended without loss."""

from collections.abc import Callable
from dataclasses import dataclass, field

from nemo_ds2_adapters.errors import AdapterFileError
from nemo_ds2_adapters.store.folder import CACHE, Folder
from nemo_ds2_adapters.store.index import Entry
from nemo_ds2_adapters.store.personal import read_personal
from nemo_ds2_adapters.store.shelf import check_sum, remains
from nemo_ds2_adapters.store.version import Version, versions_among


@dataclass
class StoreReport:
    """What `AdapterStore.verify` found."""

    users: int = 0
    versions: int = 0
    repaired: list[str] = field(default_factory=list)  # one sentence each
    problems: list[str] = field(default_factory=list)  # one sentence each; these files are left as they are

    @property
    def ok(self) -> bool:
        """Whether every adapter can be read."""
        return not self.problems


def check_store(folder: Folder, on_progress: Callable[[float], None] = lambda _: None) -> StoreReport:
    """Check all files of a store.

    Args:
        folder: where they lie.
        on_progress: called with the share that is done, 0 to 1, again and again.

    Raises:
        StoreBusyError: another process holds a lock for too long.
    """
    report = StoreReport()
    shards = folder.shards()
    for i, shard in enumerate(shards):
        for user, _ in folder.shard(shard):
            with folder.lock(user):
                _check_user(folder, user, report)
        on_progress((i + 1) / len(shards))
    return report


def _check_user(folder: Folder, user: str, report: StoreReport) -> None:
    names = folder.names(user)
    versions = versions_among(names)
    known = {name for v in versions for name in (v.file_name, v.index_name)}
    left = remains(folder, names)
    folder.remove(user, left)
    for name in left:
        report.repaired.append(f"{user}/{name}: removed, left by a write that was interrupted")
    for name in set(names) - known - {*left, CACHE}:
        report.problems.append(f"{user}/{name}: does not belong here")
    if not versions and not set(names) - {*left}:
        folder.remove_user(user)
        return
    for version in versions:
        _check_version(folder, user, version, report)
    for name in folder.restrict(user):
        report.repaired.append(f"{name}: was readable by others than its owner")
    report.users += bool(versions)
    report.versions += len(versions)


def _check_version(folder: Folder, user: str, version: Version, report: StoreReport) -> None:
    label = f"{user}/{version.file_name}"
    data = folder.read(user, version.file_name)
    try:
        check_sum(data, version, label)
        entry = Entry.of(version, read_personal(data, user, label), len(data))
    except AdapterFileError as error:
        report.problems.append(str(error))
        return
    (stored,) = folder.read_many([(user, version.index_name)])
    if Entry.from_bytes(stored, version, user) != entry:
        folder.note(user, version.index_name, entry.to_bytes())
        report.repaired.append(f"{user}/{version.index_name}: written anew")
