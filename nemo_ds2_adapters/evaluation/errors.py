"""How far what was recognised is from what was said."""

import unicodedata
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from kaldialign import edit_distance


@dataclass(frozen=True)
class Score:
    """Errors (edit distances) of an utterance, or of several together: scores can be added, `sum(scores, Score())`."""

    words: int = 0  # of the reference
    word_errors: int = 0
    characters: int = 0  # of the reference
    character_errors: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(*(a + b for a, b in zip(astuple(self), astuple(other))))

    @property
    def wer(self) -> float | None:
        """Word errors as a fraction of the reference's words, None if it has none."""
        return self.word_errors / self.words if self.words else None

    @property
    def cer(self) -> float | None:
        """Character errors as a fraction of the reference's characters, None if it has none."""
        return self.character_errors / self.characters if self.characters else None


def score(hypothesis: str, reference: str) -> Score:
    """The errors of one utterance, in words and in characters."""
    said, written = composed(reference), composed(hypothesis)
    return Score(
        words=len(said.split()),
        word_errors=unit_errors(written.split(), said.split()),
        characters=len(said),
        character_errors=unit_errors(list(written), list(said)),
    )


def unit_errors(hypothesis: Sequence[int] | Sequence[str], reference: Sequence[int] | Sequence[str]) -> int:
    """Units to insert, delete or replace (Levenshtein)."""
    return edit_distance(list(reference), list(hypothesis))["total"]


def composed(text: str) -> str:
    """Text in one Unicode form (NFC), to be compared: a model that writes graphemes writes another than people do."""
    return unicodedata.normalize("NFC", text)
