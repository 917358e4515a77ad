"""An n-gram language model of a text: modified Kneser-Ney, interpolated, as an ARPA file.

What KenLM's `lmplz` computes (Chen & Goodman 1999, Heafield et al. 2013), for texts that fit into memory: pip has no
program that does, and those it has give unknown words no probability.
"""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.atomic import write_atomically

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
MAX_ORDER = 6  # which is what KenLM reads
FALLBACK = (0.5, 1.0, 1.5)  # discounts where a text is too short to estimate them; those of lmplz

Gram = tuple[str, ...]


@dataclass(frozen=True)
class NgramModel:
    """Log10 probabilities of n-grams by order, those of one word first, and log10 back-off weights of contexts."""

    probabilities: list[dict[Gram, float]]
    backoffs: dict[Gram, float]

    def arpa(self) -> Iterator[str]:
        """The lines of an ARPA file."""
        yield "\\data\\"
        yield from (f"ngram {n}={len(grams)}" for n, grams in enumerate(self.probabilities, 1))
        for n, grams in enumerate(self.probabilities, 1):
            yield f"\n\\{n}-grams:"
            for gram, probability in sorted(grams.items()):
                backoff = self.backoffs.get(gram)
                weight = "" if backoff is None or n == len(self.probabilities) else f"\t{backoff:.7f}"
                yield f"{probability:.7f}\t{' '.join(gram)}{weight}"
        yield "\n\\end\\"


def estimate(sentences: Iterable[str], order: int = 3) -> NgramModel:
    """Estimate a model.

    Args:
        sentences: words between white space.
        order: words of the longest n-grams.

    Raises:
        InputError: the order is out of range, there are no words, or one of them is a mark of the format.
    """
    if not 1 <= order <= MAX_ORDER:
        raise InputError(f"order={order}: expected 1 to {MAX_ORDER}")
    counts = _counts(sentences, order)
    words = {gram[0] for gram in counts[0]} | {UNKNOWN}
    probabilities: list[dict[Gram, float]] = []
    backoffs: dict[Gram, float] = {}
    lower: dict[Gram, float] = {}  # of the order before, not logarithms
    for n, grams in enumerate(counts, 1):
        discounts = _discounts(grams)
        totals: Counter[Gram] = Counter()
        saved: dict[Gram, float] = defaultdict(float)
        for gram, count in grams.items():
            totals[gram[:-1]] += count
            saved[gram[:-1]] += discounts[min(count, 3) - 1]
        backoffs |= {context: _log10(saved[context] / total) for context, total in totals.items() if context}
        share = {context: saved[context] / total for context, total in totals.items()}
        found = {
            gram: (count - discounts[min(count, 3) - 1]) / totals[gram[:-1]]
            + share[gram[:-1]] * (lower[gram[1:]] if n > 1 else 1 / len(words))
            for gram, count in grams.items()
        }
        if n == 1:
            found[UNKNOWN,] = share[()] / len(words)
        logarithms = {gram: _log10(probability) for gram, probability in found.items()}
        probabilities.append(logarithms | ({(START,): -99.0} if n == 1 else {}))
        lower = found
    return NgramModel(probabilities, backoffs)


def write_language_model(text: str | os.PathLike[str], path: str | os.PathLike[str], order: int = 3) -> NgramModel:
    """Estimate a model of a text file, one sentence per line, and write it.

    Raises:
        InputError: the text cannot be read, or see `estimate`.
        AdapterFileError: the file cannot be written.
    """
    try:
        model = estimate(Path(text).read_text(encoding="utf-8").splitlines(), order)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{text}: cannot be read as UTF-8 text ({error})") from error
    except InputError as error:
        raise InputError(f"{text}: {error}") from error
    write_atomically(path, "\n".join(model.arpa()).encode() + b"\n")
    return model


def _counts(sentences: Iterable[str], order: int) -> list[Counter[Gram]]:
    """Of the n-grams of each order: how often the longest occur, and before how many different words the others."""
    longest: list[Counter[Gram]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        if not (words := sentence.split()):
            continue
        if marks := {START, END, UNKNOWN} & set(words):
            raise InputError(f"{sentence!r}: {min(marks)} is a mark of the ARPA format, and no word")
        units = [START, *words, END]
        for end in range(2, len(units) + 1):
            longest[min(order, end) - 1][tuple(units[max(0, end - order) : end])] += 1
    if not any(longest):
        raise InputError("there are no words")
    # What begins with the start of a sentence has no word before it: it is counted as it occurs.
    for n in range(order - 1, 0, -1):
        for gram in longest[n]:
            longest[n - 1][gram[1:]] += 1
    return longest


def _discounts(grams: Counter[Gram]) -> tuple[float, float, float]:
    """Of n-grams that were counted once, twice, and more often."""
    of_counts = Counter(min(count, 5) for count in grams.values())
    ones, twos, threes, fours = (of_counts[n] for n in range(1, 5))
    if not (ones and twos and threes):
        return FALLBACK
    share = ones / (ones + 2 * twos)
    found = (1 - 2 * share * twos / ones, 2 - 3 * share * threes / twos, 3 - 4 * share * fours / threes)
    return found if all(0 <= value <= n for n, value in enumerate(found, 1)) else FALLBACK


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else -99.0
