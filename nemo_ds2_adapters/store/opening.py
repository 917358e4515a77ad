"""Finding or making a store at a path or URL."""

import json
import os
from pathlib import Path

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.store.folder import Folder
from nemo_ds2_adapters.store.local import LocalFolder
from nemo_ds2_adapters.store.remote import RemoteFolder

FORMAT = "nemo_ds2_adapters store"
FORMAT_VERSION = 1


def open_folder(path: str | os.PathLike[str], create: bool, lock_timeout: float) -> Folder:
    """The place at a local path or an fsspec URL, which is a store, or becomes one.

    Raises:
        InputError: it is no store and `create` is false, or something else lies there, or it is of a later version.
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
        folder.create(json.dumps({"format": FORMAT, "version": FORMAT_VERSION}))
    else:
        _check_format(text, str(folder))
    return folder


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether there is a store at a local path or an fsspec URL.

    Raises:
        InputError: fsspec does not know the protocol.
    """
    return _place(path, lock_timeout=0).format_text() is not None


def _place(path: str | os.PathLike[str], lock_timeout: float) -> Folder:
    text = os.fspath(path)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    elif "://" in text:
        return RemoteFolder(text)
    return LocalFolder(Path(text), lock_timeout)


def _check_format(text: str, label: str) -> None:
    try:
        found = json.loads(text)
        known = found["format"] == FORMAT
        version = found["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{label}: its store.json is not one of an adapter store ({error})") from error
    if not known or version != FORMAT_VERSION:
        raise InputError(
            f"{label}: is {found['format']!r} of version {version!r}, this version of nemo_ds2_adapters reads "
            f"{FORMAT!r} of version {FORMAT_VERSION}: update the package"
        )
