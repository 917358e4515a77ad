"""From a user id, any text, to an adapter name and a file name."""

import hashlib
import re
import shlex
from typing import Any

from nemo_ds2_adapters.errors import UserIdError

MAX_USER_ID_LENGTH = 200  # characters
HASH_LENGTH = 40  # hexadecimal digits: 160 bits, so that two ids never meet, not even on purpose


def adapter_name_for_user(user_id: str) -> str:
    """The adapter name of a user: `user_` and a hash of the id. It reveals nothing and is legal everywhere.

    The same id gives the same name on every machine. Ids are compared character by character: `A` and `a`, or an
    accented letter in its composed and decomposed form, are different users. Raises UserIdError.
    """
    return f"user_{user_hash(user_id)}"


def user_hash(user_id: str) -> str:
    """Hash of a user id, for file names: 40 hexadecimal digits of its SHA-256. Raises UserIdError."""
    return hashlib.sha256(check_user_id(user_id).encode("utf-8")).hexdigest()[:HASH_LENGTH]


def check_user_id(user_id: Any, key: str = "model.adapter.user_id") -> str:
    """The user id, if it is one: text of 1 to 200 characters, encodable as UTF-8. Else UserIdError, beginning with
    `key`.

    Hydra may have parsed it into a number or nothing; then the message shows how to quote it on a command line.
    """
    if not isinstance(user_id, str):
        kind = "nothing" if user_id is None else f"{type(user_id).__name__} {user_id!r}"
        example = "null" if user_id is None else str(user_id)
        raise UserIdError(
            f"{key}: a user id is text, but {kind} arrived; on the command line write {hydra_override(key, example)}"
        )
    if not user_id:
        raise UserIdError(f"{key}: the user id is empty")
    if len(user_id) > MAX_USER_ID_LENGTH:
        raise UserIdError(
            f"{key}: the user id has {len(user_id)} characters, at most {MAX_USER_ID_LENGTH} are allowed"
        )
    try:
        user_id.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserIdError(f"{key}: the user id {user_id!r} is not valid Unicode text ({error.reason})") from error
    return user_id


def hydra_override(key: str, text: str) -> str:
    """`key=text` quoted for the shell and for Hydra, so that exactly this text arrives.

    One text cannot be said at all: `???` means "missing" to OmegaConf.
    """
    # OmegaConf takes `${` for an interpolation unless a backslash precedes it; Hydra ends the text at a quote unless
    # a backslash precedes it. Both take backslashes for what they are elsewhere, so only those in front are doubled.
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r'(\\*)"', r'\1\1\\"', text)
    text = re.sub(r"(\\+)\Z", r"\1\1", text)
    return shlex.quote(f'{key}="{text}"')
