"""Reading and checking every file of a store, and mending what can be mended without loss."""

from collections.abc import Callable
from dataclasses import dataclass, field

from nemo_ds2_adapters.errors import AdapterFileError
from nemo_ds2_adapters.formats.scratch import sweep_scratch
from nemo_ds2_adapters.store import words
from nemo_ds2_adapters.store.folder import CACHE, CLAIM, Folder
from nemo_ds2_adapters.store.shelf import read_version
from nemo_ds2_adapters.store.version import versions_among


@dataclass
class StoreReport:
    """What `AdapterStore.verify` found."""

    users: int = 0
    versions: int = 0
    word_lists: int = 0  # users who have personal words
    repaired: list[str] = field(default_factory=list)  # one sentence each
    problems: list[str] = field(default_factory=list)  # one sentence each; these files are left as they are

    @property
    def ok(self) -> bool:
        """Whether everything can be read."""
        return not self.problems


def check_store(folder: Folder, on_progress: Callable[[float], None] = lambda _: None) -> StoreReport:
    """Check all files of a store; `on_progress` is told, again and again, the share that is done, 0 to 1."""
    report = StoreReport()
    report.repaired += [f"{path}: removed, left by a run that was killed" for path in sweep_scratch()]
    shards = folder.shards()
    for i, shard in enumerate(shards):
        try:
            users = [user for user, _ in folder.users(shard)]
        except AdapterFileError as error:
            report.problems.append(str(error))
            users = []
        for user in users:
            try:
                with folder.lock(user):
                    _check_user(folder, user, report)
            except AdapterFileError as error:
                report.problems.append(str(error))
        on_progress((i + 1) / len(shards))
    return report


def _check_user(folder: Folder, user: str, report: StoreReport) -> None:
    names = folder.names(user)
    versions = versions_among(names)
    # `list` read an index once: nobody does any more.
    left = folder.leftovers(names) + [name for name in names if name.endswith(".json")]
    folder.remove(user, left)
    try:
        swept = folder.sweep_cache(user)
    except AdapterFileError as error:
        report.problems.append(str(error))
        swept = []
    for name in left + swept:
        report.repaired.append(f"{user}/{name}: removed, left by a write that was interrupted or by an older version")
    claims = filter(CLAIM.fullmatch, names)  # of writers that are at work, or were killed: that cannot be told
    for name in set(names) - {v.file_name for v in versions} - {*left, *claims, CACHE, words.FILE}:
        report.problems.append(f"{user}/{name}: does not belong here")
    if not set(names) - {*left}:
        folder.remove_user(user)
        return
    for version in versions:
        label = f"{user}/{version.file_name}"
        try:
            read_version(folder.read(user, version.file_name), version, user, label)
        except FileNotFoundError:
            continue  # removed meanwhile, at a place without locks
        except AdapterFileError as error:
            report.problems.append(str(error))
    if words.FILE in names:
        try:
            words.from_bytes(folder.read(user, words.FILE), user, f"{user}/{words.FILE}")
            report.word_lists += 1
        except FileNotFoundError:
            pass
        except AdapterFileError as error:
            report.problems.append(str(error))
    for name in folder.restrict(user):
        report.repaired.append(f"{name}: was readable by others than its owner")
    report.users += bool(versions)
    report.versions += len(versions)
