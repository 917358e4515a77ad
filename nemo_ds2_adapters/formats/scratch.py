"""Temporary folders that do not outlive a run by more than one: what a killed run leaves, the next one sweeps."""

import fcntl
import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "nemo_ds2_adapters-"  # in the system's folder for temporary files

logger = logging.getLogger(__name__)


class ScratchFolder:
    """A folder of this process's own, readable by its owner only and locked by it. It ends with this object.

    Making one removes those of this user whose runs were killed: the kernel has freed their locks.

    Args:
        purpose: a word of its name.
    """

    def __init__(self, purpose: str) -> None:
        sweep_scratch()
        lock = None
        while lock is None:  # another process may have swept it before it was locked
            self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-"))
            lock = _locked(self.path)
        self._end = weakref.finalize(self, _remove, self.path, lock)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *reason: object) -> None:
        self._end()


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """In this block, temporary files of the whole process, NeMo's with models and speech too, lie in a scratch folder.

    For programs: a thread that outlives the block would lose its files.
    """
    before = tempfile.tempdir
    if before is not None and Path(before).name.startswith(f"{PREFIX}run-"):  # they do already
        yield
        return
    try:
        scratch = ScratchFolder("run")
    except OSError:  # a full disk: what needs temporary files says so, the rest works
        yield
        return
    with scratch as folder:
        tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before


def sweep_scratch() -> list[Path]:
    """Remove scratch folders that killed runs of this user have left; which they were."""
    swept = []
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = _locked(path)
        if lock is not None:
            logger.info("removing %s, which a run that was killed has left", path)
            _remove(path, lock)
            swept.append(path)
    return swept


def _locked(path: Path) -> int | None:
    """The descriptor that locks a folder; None if it is gone, no folder, another user's, or another process's."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_uid == os.getuid() and os.path.samestat(os.fstat(lock), os.lstat(path)):
            return lock
    except OSError:  # it is locked, or was removed meanwhile
        pass
    os.close(lock)
    return None


def _remove(path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)
