"""Text from data, made fit for a terminal."""

import pytest

from nemo_ds2_adapters.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("홍길동 <ann@example.com>", "홍길동 <ann@example.com>"),
        ("red\x1b[31m", "red\\x1b[31m"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("gpj.exe\u202e", "gpj.exe\\u202e"),
        ("\u2066a\u2069\u200f\u061c", "\\u2066a\\u2069\\u200f\\u061c"),
        ("a\u2028b\x85\x9b", "a\\u2028b\\x85\\x9b"),
        ("\ud800", "\\ud800"),
    ],
)
def test_only_what_prints_is_left(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()
