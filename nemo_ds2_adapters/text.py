"""Text that came from data, made fit for a terminal, a log, a table or a file."""

import json
import re
from typing import Any


def printable(text: str) -> str:
    """The text with everything escaped that does not print: control characters, line breaks, bidirectional marks."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON in which every language can be read, and what does not print is escaped, as JSON allows for all of it."""

    def escaped(match: re.Match[str]) -> str:
        character = match[0]
        return character if character.isprintable() else json.dumps(character)[1:-1]

    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return re.sub(r"[^\n -\x7e]", escaped, text).replace("\x7f", r"\u007f")
