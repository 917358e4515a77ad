"""Plain values: what may stand in an adapter file besides tensors."""

from collections.abc import Mapping
from typing import Any

from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.safe_pickle.unpickle import Container

MAX_VALUES = 1_000_000
MAX_DEPTH = 50
LEAVES = (str, bool, int, float, type(None))


def written_values(values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """A caller's plain values, for a file; `what` they are begins the message of the InputError if something else is
    there."""
    try:
        return plain_values(dict(values))
    except AdapterFileError as error:
        raise InputError(f"{what} cannot be written: {error}") from error


def plain_values(value: Any, limit: int = MAX_VALUES, leaves: tuple[type, ...] = ()) -> Any:
    """Dicts with text keys, lists, text, numbers, bools and None; OmegaConf containers and tuples become these.

    A list that holds a list twice, which holds a list twice, and so on, has a billion values in few bytes: more than
    `limit`, or any of another type than these and `leaves`, are an AdapterFileError.
    """
    count = 0

    def convert(value: Any, where: str, depth: int) -> Any:
        nonlocal count
        count += 1
        if count > limit or depth > MAX_DEPTH:
            raise AdapterFileError(f"holds more than {limit} values, or nests them deeper than {MAX_DEPTH}")
        if isinstance(value, Container):
            value = _content(value, where)
        if isinstance(value, dict):
            return {_text(k, where): convert(v, f"{where}.{k}" if where else k, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [convert(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
        if type(value) is str:
            return _text(value, where)
        if type(value) in LEAVES or isinstance(value, leaves):
            return value
        raise AdapterFileError(f"{where or 'its content'} is a {type(value).__name__}, not a plain value")

    return convert(value, "", 0)


def _text(value: Any, where: str) -> str:
    if type(value) is not str:
        raise AdapterFileError(f"{where or 'its content'} has a key that is not text: {value!r}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise AdapterFileError(f"{where or 'its content'} holds {value!r}, no valid Unicode text") from error
    return value


def _content(container: Container, where: str) -> Any:
    """The value of an OmegaConf node: a section's items, or what a leaf holds."""
    for key in ("_content", "_val"):
        if key in container.state:
            return container.state[key]
    raise AdapterFileError(f"{where or 'its content'} is an OmegaConf container without content")
