"""Temporary folders that do not outlive a run by more than one: what a killed run leaves, the next one sweeps."""

import fcntl
import logging
import os
import shutil
import tempfile
import weakref
from pathlib import Path

PREFIX = "nemo_ds2_adapters-"  # in the system's folder for temporary files
LOCK = ".in_use"

logger = logging.getLogger(__name__)


class ScratchFolder:
    """A folder of this process's own, readable by its owner only. It ends with this object.

    Making one removes those of this user whose runs were killed.

    Args:
        purpose: a word of its name.
    """

    def __init__(self, purpose: str) -> None:
        sweep_scratch()
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-"))
        self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._end = weakref.finalize(self, _remove, self.path, self._lock)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *reason: object) -> None:
        self._end()


def sweep_scratch() -> None:
    """Remove scratch folders that killed runs have left."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if path.stat(follow_symlinks=False).st_uid != os.getuid() or path.is_symlink():
                continue
            lock = os.open(path / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # gone meanwhile, or being made
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # in use
            os.close(lock)
        else:
            logger.info("removing %s, which a run that was killed has left", path)
            _remove(path, lock)


def _remove(path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)
