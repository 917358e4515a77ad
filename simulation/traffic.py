"""Who asks when."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

DAY = 86400.0  # seconds
DEPTH = 0.8  # of the daily curve


@dataclass(frozen=True)
class Request:
    """Somebody wants a recording to be recognised."""

    at: float  # seconds since midnight
    user: int


def daily(at: float) -> float:
    """The rate at a time as a multiple of the day's mean: from 0.2 at 4:00 to 1.8 at 16:00."""
    return 1 + DEPTH * math.sin(2 * math.pi * (at / DAY - 10 / 24))


def requests(users: int, mean: float, exponent: float, start: float, end: float, seed: int) -> Iterator[Request]:
    """Requests of so many users over some time of a day.

    Args:
        users: of whom the first asks most often, by Zipf's law.
        mean: requests per second of all of them, over the day.
        exponent: of the law.
        start: seconds since midnight, as `end`.
        end: when nobody asks any more.
        seed: another one, other times and users.
    """
    return _drawn(users, mean, exponent, start, end, seed, is_daily=True)


def steady(users: int, rate: float, exponent: float, seconds: float, seed: int) -> Iterator[Request]:
    """As `requests`, at the same rate all the time."""
    return _drawn(users, rate, exponent, 0.0, seconds, seed, is_daily=False)


def _drawn(
    users: int, mean: float, exponent: float, start: float, end: float, seed: int, is_daily: bool
) -> Iterator[Request]:
    chance = random.Random(seed)
    cumulative = list(accumulate((rank + 1) ** -exponent for rank in range(users)))
    most = mean * (1 + DEPTH) if is_daily else mean
    now = start
    while (now := now + chance.expovariate(most)) < end:
        if not is_daily or chance.random() < mean * daily(now) / most:  # thinning
            (user,) = chance.choices(range(users), cum_weights=cumulative)
            yield Request(now, user)
