"""Text that came from data, made fit for a terminal, a log or a table."""


def printable(text: str) -> str:
    """The text with everything escaped that does not print: control characters, line breaks, bidirectional marks."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
