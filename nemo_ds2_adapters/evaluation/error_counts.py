"""How far what was recognised is from what was said."""

import unicodedata
from collections.abc import Sequence

from kaldialign import edit_distance


def composed(text: str) -> str:
    """Text in one Unicode form (NFC), to be compared: a model that writes graphemes writes another than people do."""
    return unicodedata.normalize("NFC", text)


def word_errors(hypothesis: str, reference: str) -> int:
    """Words to insert, delete or replace (Levenshtein)."""
    return edit_distance(composed(reference).split(), composed(hypothesis).split())["total"]


def character_errors(hypothesis: str, reference: str) -> int:
    """Characters to insert, delete or replace (Levenshtein)."""
    return edit_distance(list(composed(reference)), list(composed(hypothesis)))["total"]


def token_errors(hypothesis: Sequence[int], reference: Sequence[int]) -> int:
    """Output units to insert, delete or replace (Levenshtein)."""
    return edit_distance(list(reference), list(hypothesis))["total"]
