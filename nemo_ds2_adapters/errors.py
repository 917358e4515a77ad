"""The exceptions that leave this package; `code` is what a program goes by, and stays as it is."""

from collections.abc import Iterator
from contextlib import contextmanager


class NemoDs2Error(Exception):
    """What this package could not do, in one line that names the thing and says what to do."""

    code = "error"


class InputError(NemoDs2Error, ValueError):
    """Wrong input of a person: a key, a name, a file or a value."""

    code = "input"


class AdapterNameError(InputError):
    """An adapter name that is not legal, exists already, or does not exist."""

    code = "adapter_name"


class UserIdError(InputError):
    """A user id that is not text, is empty or too long; the message shows what to write instead."""

    code = "user_id"


class UnknownUserError(InputError):
    """A store has no adapter of this user, or not this version of it."""

    code = "unknown_user"


class AdapterFileError(NemoDs2Error):
    """An adapter file that cannot be read, or does not fit the model. The model is as it was before."""

    code = "adapter_file"


class BaseMismatchError(AdapterFileError):
    """The adapter was made for another base model; the message shows both fingerprints and what differs."""

    code = "base_mismatch"


class StreamError(NemoDs2Error):
    """A stream that cannot go on: it has ended, or what it was fed cannot be recognised. Others are not touched."""

    code = "stream"


class StoreBusyError(NemoDs2Error):
    """Another process has held the lock of a store's directory for too long. Nothing was changed."""

    code = "store_busy"


class StoreAccessError(AdapterFileError):
    """A store that cannot be read or written: permissions, a full disk, a network that does not answer."""

    code = "store_access"


class ClusterError(NemoDs2Error):
    """A cluster that does not go on; what was finished is kept, and the same command goes on where it was."""

    code = "cluster"


@contextmanager
def naming(label: object) -> Iterator[None]:
    """Begin the message of an `AdapterFileError` that leaves the block with the file it is about."""
    try:
        yield
    except AdapterFileError as error:
        raise type(error)(f"{label}: {error}") from error
