"""Writing a file so that a reader, or a crash at any instant, finds the old content or the new, never a half."""

import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from nemo_ds2_adapters.errors import AdapterFileError, InputError

UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")  # a file that is being written
LEFT_BEHIND = 600.0  # seconds after which nobody writes it any more: its run was killed


def write_atomically(path: str | os.PathLike[str], content: bytes | bytearray, mode: int | None = None) -> None:
    """Write to a temporary file beside `path`, bring it to the disk, and rename it; a symbolic link is followed.

    `mode` is the file's permissions, the process's umask taken off; None keeps those of a file that is replaced.
    Raises AdapterFileError: the operating system refuses; an existing file is untouched.
    """
    with replacement(path, mode) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacement(path: str | os.PathLike[str], mode: int | None = None) -> Iterator[Path]:
    """As `write_atomically`, for content that somebody else writes: the block writes the file it is given."""
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        try:
            kept = stat.S_IMODE(target.stat().st_mode) if mode is None and target.exists() else None
            # Made here, so that at no moment others may read what they may not read afterwards.
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode))
            if kept is not None:
                os.chmod(temporary, kept)
            yield temporary
            _bring_to_disk(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        _bring_to_disk(target.parent)
    except OSError as error:
        raise AdapterFileError(f"{path}: cannot be written ({error.strerror or error})") from error


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove what killed runs have left half written in a folder; what cannot be removed stays."""
    with suppress(OSError), os.scandir(folder) as found:
        for entry in filter(lambda entry: UNFINISHED.fullmatch(entry.name), found):
            if time.time() - entry.stat(follow_symlinks=False).st_mtime > LEFT_BEHIND:
                os.unlink(entry)


def check_not_input(output: str | os.PathLike[str], inputs: Mapping[str, str | os.PathLike[str] | None]) -> None:
    """Refuse (InputError) to write over what is read, or into a folder that is; links are followed. Ask it beforehand.

    `inputs` are files and folders by the name under which a person gave them; None where nothing was given.
    """
    for name, path in inputs.items():
        if path is not None and (_is_same(output, path) or (os.path.isdir(path) and _is_inside(output, path))):
            raise InputError(f"{output} would overwrite {name}, which is read: write to another path")


def _is_same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them does not exist, or is no path at all
        return False


def _is_inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def _bring_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
