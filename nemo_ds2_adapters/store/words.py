"""Words that a person uses, and that decoding favours: names, places, terms; a phrase of several counts as one."""

import json
import unicodedata
from collections.abc import Iterable

from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.errors import AdapterFileError, InputError, UserIdError

FILE = "words"  # in a user's folder

MAX_WORDS = 1000  # of one person
MAX_LENGTH = 100  # characters of one


def checked_words(words: Iterable[str]) -> tuple[str, ...]:
    """Words in one form (NFC, single spaces), each once, in their order.

    Raises InputError: names a word that is empty, too long or no printable text; or there are too many.
    """
    if isinstance(words, str):
        raise InputError(f"words={words!r}: expected a list of words")
    found: dict[str, None] = {}
    for word in words:
        if not isinstance(word, str):
            raise InputError(f"word {word!r}: expected text")
        text = unicodedata.normalize("NFC", " ".join(word.split()))
        if not text:
            raise InputError(f"word {word!r}: is empty")
        if len(text) > MAX_LENGTH:
            raise InputError(f"word {text[:30]!r}...: has {len(text)} characters, at most {MAX_LENGTH} are allowed")
        if not text.isprintable():
            raise InputError(f"word {text!r}: has characters that cannot be printed")
        found[text] = None
    if len(found) > MAX_WORDS:
        raise InputError(f"{len(found)} words: at most {MAX_WORDS} are allowed")
    return tuple(found)


def to_bytes(user_id: str, words: Iterable[str]) -> bytes:
    """The file that holds a user's words. Raises InputError: see `checked_words`."""
    return json.dumps({"user_id": user_id, "words": checked_words(words)}, ensure_ascii=False).encode()


def from_bytes(data: bytes | bytearray, user: str, label: str) -> tuple[str, ...]:
    """The words in the file of the user with this hash. Raises AdapterFileError: it is damaged, or not theirs."""
    try:
        found = json.loads(data)
        owner, words = user_hash(found["user_id"]), checked_words(found["words"])
    except (ValueError, TypeError, KeyError, RecursionError, UserIdError, InputError) as error:
        raise AdapterFileError(f"{label}: is damaged ({error}); put the words anew") from error
    if owner != user:
        raise AdapterFileError(f"{label}: is of another user, or lies in a wrong place")
    return words
