"""Finding or making a store at a path or URL."""

import json
import os
from pathlib import Path

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.store.folder import FORMAT, FORMAT_TEXT, FORMAT_VERSION, Folder
from nemo_ds2_adapters.store.local import LocalFolder


def open_folder(path: str | os.PathLike[str], create: bool, lock_timeout: float) -> Folder:
    """The place at a local path or a URL of an object store, which is a store, or becomes one.

    Raises InputError: it is no store and `create` is false, or something else lies there, or it is of a later version.
    """
    folder = _place(path, lock_timeout)
    text = folder.format_text()
    if text is None:
        if not create:
            raise InputError(
                f"{folder}: there is no adapter store: check the path, or make one with "
                f"AdapterStore({str(folder)!r}) or ds2-adapters import --create"
            )
        if not folder.is_free():
            raise InputError(f"{folder}: is not an adapter store, and not empty: give a new or empty directory")
        folder.create(FORMAT_TEXT)
    else:
        folder.is_old = _format_version(text, str(folder)) < FORMAT_VERSION
    return folder


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether there is a store at a local path or a URL of an object store.

    Raises InputError: no such protocol, or what speaks it is not installed.
    """
    return _place(path, lock_timeout=0).format_text() is not None


def _place(path: str | os.PathLike[str], lock_timeout: float) -> Folder:
    text = os.fspath(path)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    elif "://" in text:
        return Folder(text)
    return LocalFolder(Path(text), lock_timeout)


def _format_version(text: str, label: str) -> int:
    try:
        found = json.loads(text)
        kind, version = found["format"], found["version"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{label}: its store.json is not one of an adapter store ({error})") from error
    if kind != FORMAT or version not in range(1, FORMAT_VERSION + 1):
        raise InputError(
            f"{label}: is {kind!r} of version {version!r}, this version of nemo_ds2_adapters reads {FORMAT!r} up to "
            f"version {FORMAT_VERSION}: update the package"
        )
    return int(version)
