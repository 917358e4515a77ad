"""Random sentences of the kind speakers of the CMU AN4 corpus read: spelled names, commands, numbers and dates.

Transcripts hold a to z and single blanks only; spelled letters stand alone (``m a r y``) and numbers are words.
Everything is drawn from a seeded ``random.Random``, so the same seed gives the same sentences on every machine.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_lowercase

COMMANDS = ("yes", "no", "go", "stop", "start", "repeat", "help")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"),
    *("sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"),
    *("eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth"),
    *("eighteenth", "nineteenth", "twentieth"),
)
FIRST_NAMES = (
    *("albert", "amanda", "andrew", "barbara", "carlos", "catherine", "daniel", "dorothy", "edwin", "felix"),
    *("fiona", "george", "hannah", "hugo", "irene", "jacob", "judith", "kevin", "laura", "leonard", "marcus"),
    *("monica", "nadia", "oliver", "patrick", "quentin", "rachel", "samuel", "theresa", "ursula", "vincent"),
    *("walter", "xavier", "yvonne", "zachary"),
)
# Surnames and places: any beginning goes with any end.
STEMS = (
    *("alder", "bridge", "carl", "chester", "dun", "ell", "fitz", "glen", "hart", "ing", "jack", "kirk", "lind"),
    *("mac", "new", "oak", "pet", "quin", "rich", "sax", "thorn", "under", "vander", "wal", "york", "zimmer"),
)
ENDINGS = ("berg", "dale", "field", "ford", "gate", "ham", "ley", "man", "mont", "son", "ton", "ville", "wick", "wood")
STREETS = ("ash", "bay", "birch", "elm", "grove", "hill", "king", "lake", "mill", "oak", "park", "pine", "vine")
ROADS = ("road", "lane", "drive", "way", "court", "street")

_MAX_DRAWS_PER_SENTENCE = 1000


@dataclass(frozen=True)
class SentenceSets:
    """The sentences of one speaker; no sentence is in two sets."""

    train: list[str]
    validation: list[str]
    test: list[str]


def random_sentence(rng: random.Random) -> str:
    """One sentence; how often each kind comes up follows AN4."""
    [kind] = rng.choices(list(_KINDS), weights=list(_KINDS.values()))
    return kind(rng)


def distinct_sentences(count: int, rng: random.Random) -> list[str]:
    """``count`` different sentences.

    Raises:
        ValueError: ``count`` is negative.
        RuntimeError: no sentence that is not yet in the list could be found.
    """
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    found: dict[str, None] = {}  # a set that keeps the order
    for _ in range(_MAX_DRAWS_PER_SENTENCE * count):
        if len(found) == count:
            break
        found.setdefault(random_sentence(rng))
    if len(found) < count:
        raise RuntimeError(f"found only {len(found)} different sentences of {count}")
    return list(found)


def sentence_sets(speaker: str, train: int, validation: int, test: int, seed: int = 0) -> SentenceSets:
    """Disjoint sets of ``train``, ``validation`` and ``test`` sentences for one speaker.

    Every speaker gets sentences of their own. The test set stays the same whatever the size of the others.
    """
    sentences = distinct_sentences(test + validation + train, random.Random(f"{speaker}/{seed}"))
    return SentenceSets(
        train=sentences[test + validation :],
        validation=sentences[test : test + validation],
        test=sentences[:test],
    )


def number_words(number: int) -> str:
    """``number``, 0 to 9999, in words: 643 is ``six hundred forty three``.

    Raises:
        ValueError: ``number`` is out of range.
    """
    if not 0 <= number <= 9999:
        raise ValueError(f"number must be 0 to 9999, got {number}")
    if number < 10:
        return DIGITS[number]
    if number < 20:
        return TEENS[number - 10]
    if number < 100:
        tens, rest = divmod(number, 10)
        head = TENS[tens - 2]
    elif number < 1000:
        hundreds, rest = divmod(number, 100)
        head = f"{DIGITS[hundreds]} hundred"
    else:
        thousands, rest = divmod(number, 1000)
        head = f"{DIGITS[thousands]} thousand"
    return f"{head} {number_words(rest)}" if rest else head


def _spell(word: str) -> str:
    return " ".join(word)


def _digits(rng: random.Random, count: int) -> str:
    """Digits one by one; a zero is read "oh" more often than "zero"."""
    words = (rng.choice(DIGITS) for _ in range(count))
    return " ".join(rng.choice(("oh", "oh", "zero")) if word == "zero" else word for word in words)


def _number(rng: random.Random) -> str:
    """A number as people read it out: "forty two", "one seventy five", "five oh four", "six hundred nine"."""
    style = rng.randrange(8)
    if style == 0:
        return number_words(rng.randint(100, 9999))
    if style <= 2:
        return _digits(rng, rng.randint(2, 4))
    if style == 3:
        return f"{rng.choice(DIGITS[1:])} {number_words(rng.randint(10, 99))}"
    return number_words(rng.randint(1, 99))


def _command(rng: random.Random) -> str:
    return rng.choice(COMMANDS)


def _enter(rng: random.Random) -> str:
    return f"enter {_number(rng)}"


def _record(rng: random.Random) -> str:
    """Some letters and a number, alone or after a verb: "erase o j t k s thirty five"."""
    letters = _spell("".join(rng.choices(ascii_lowercase, k=rng.randint(3, 5))))
    verb = rng.choice(("erase ", "rubout ", ""))
    return f"{verb}{letters} {_number(rng)}"


def _first_name(rng: random.Random) -> str:
    return _spell(rng.choice(FIRST_NAMES))


def _surname(rng: random.Random) -> str:
    return _spell(rng.choice(STEMS) + rng.choice(ENDINGS))


def _street(rng: random.Random) -> str:
    return _spell(rng.choice(STREETS) + rng.choice(ROADS))


def _digit_string(rng: random.Random) -> str:
    """A house number, a postal code or a telephone number."""
    return _digits(rng, rng.choice((3, 4, 5, 5, 7)))


def _date(rng: random.Random) -> str:
    year = f"nineteen {number_words(rng.randint(20, 99))}"
    return f"{rng.choice(MONTHS)} {rng.choice(ORDINALS)} {year}"


_KINDS: dict[Callable[[random.Random], str], int] = {
    _record: 25,
    _digit_string: 20,
    _surname: 18,
    _enter: 10,
    _date: 8,
    _street: 7,
    _command: 7,
    _first_name: 5,
}
