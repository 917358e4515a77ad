"""The exceptions a caller may catch."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Wrong input of a person: one line that names the key, name or file and says what to do."""


class AdapterNameError(InputError):
    """An adapter name that is not legal, exists already, or does not exist."""


class UserIdError(InputError):
    """A user id that is not text, is empty or too long; the message shows what to write instead."""


class AdapterFileError(Exception):
    """An adapter file that cannot be read, or does not fit the model. The model is as it was before."""


class BaseMismatchError(AdapterFileError):
    """The adapter was made for another base model; the message shows both fingerprints and what differs."""


class UnknownUserError(InputError):
    """A store has no adapter of this user, or not this version of it."""


class StoreBusyError(Exception):
    """Another process has held the lock of a store's directory for too long. Nothing was changed."""


@contextmanager
def naming(label: object) -> Iterator[None]:
    """Begin the message of an `AdapterFileError` that leaves the block with the file it is about."""
    try:
        yield
    except AdapterFileError as error:
        raise type(error)(f"{label}: {error}") from error
