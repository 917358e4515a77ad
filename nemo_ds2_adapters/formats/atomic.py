"""Writing a file so that a reader, or a crash at any instant, finds the old content or the new, never a half."""

import os
from pathlib import Path
from uuid import uuid4

from nemo_ds2_adapters.errors import AdapterFileError


def write_atomically(path: str | os.PathLike[str], content: bytes, mode: int = 0o666) -> None:
    """Write to a temporary file beside `path`, bring it to the disk, and rename it.

    Args:
        path: file to write; a symbolic link is followed.
        content: all of it.
        mode: permissions of the file, the process's umask taken off.

    Raises:
        AdapterFileError: the operating system refuses; an existing file is untouched.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(target.parent)
    except OSError as error:
        raise AdapterFileError(f"{path}: cannot be written ({error.strerror})") from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
