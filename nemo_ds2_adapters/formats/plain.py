"""Plain values: what may stand in an adapter file besides tensors."""

from typing import Any

from torch import Tensor

from nemo_ds2_adapters.errors import AdapterFileError
from nemo_ds2_adapters.formats.safe_pickle.unpickle import Container

MAX_VALUES = 1_000_000
MAX_DEPTH = 50


def plain_values(value: Any, limit: int = MAX_VALUES) -> Any:
    """Dicts with text keys, lists, text, numbers, bools, None and tensors; OmegaConf containers become these.

    Args:
        value: of `unpickle`, or of a caller who wants it in a file.
        limit: how many values it may have. A list that holds a list twice, which holds a list twice, and so on, has
            a billion in few bytes.

    Raises:
        AdapterFileError: something else, or too many values.
    """
    return _Plain(limit).convert(value, "", 0)


class _Plain:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0

    def convert(self, value: Any, where: str, depth: int) -> Any:
        self._count += 1
        if self._count > self._limit or depth > MAX_DEPTH:
            raise AdapterFileError(f"holds more than {self._limit} values, or nests them deeper than {MAX_DEPTH}")
        if isinstance(value, Container):
            value = _content(value, where)
        if value is None or type(value) in (str, bool, int, float) or isinstance(value, Tensor):
            return value
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise AdapterFileError(f"{where or 'its content'} has a key that is not text: {key!r}")
            return {key: self.convert(v, f"{where}.{key}" if where else key, depth + 1) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.convert(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
        raise AdapterFileError(f"{where or 'its content'} is a {type(value).__name__}, not a plain value")


def _content(container: Container, where: str) -> Any:
    """The value of an OmegaConf node: a section's items, or what a leaf holds."""
    for key in ("_content", "_val"):
        if key in container.state:
            return container.state[key]
    raise AdapterFileError(f"{where or 'its content'} is an OmegaConf container without content")
