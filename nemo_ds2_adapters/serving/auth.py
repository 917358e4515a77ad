"""Who may call, and how often: bearer tokens, each for all users or for one."""

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from nemo_ds2_adapters.adapters.users import check_user_id
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.serving.refusal import Refusal

VARIABLE = "DS2_ADAPTERS_TOKENS"  # of the environment: lines as in a token file
LEAST_LENGTH = 16  # characters of a token
CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True)
class Caller:
    """Who calls: `user` is the only one that they may speak for, None for all; `key` is what their calls count by."""

    user: str | None
    key: str

    def check(self, user: str) -> None:
        """Make sure that the caller may speak for a user. Raises Refusal: they may not."""
        if self.user not in (None, user):
            raise Refusal(403, "forbidden", "this token is for another user")

    def check_all(self) -> None:
        """Make sure that the caller may see what is about everybody. Raises Refusal: they may not."""
        if self.user is not None:
            raise Refusal(403, "forbidden", "this token is for one user; it takes one for all users")


class Tokens:
    """The tokens of a service, kept as hashes. Without any, everybody may do everything.

    Args:
        users: by token, its user, or None for all.
    """

    def __init__(self, users: Mapping[str, str | None]) -> None:
        self._users = {_digest(token): user for token, user in users.items()}

    def __bool__(self) -> bool:
        return bool(self._users)

    def caller(self, token: str | None, address: str) -> Caller:
        """Who calls with a token, or none, from an address.

        Raises Refusal: there is no such token, or one is needed.
        """
        if not self._users:
            return Caller(None, address)
        if token is None:
            raise Refusal(401, "token", "send a token: Authorization: Bearer TOKEN", CHALLENGE)
        digest = _digest(token)  # looked up by its hash: how long that takes says nothing about a token
        if digest not in self._users:
            raise Refusal(401, "token", "there is no such token", CHALLENGE)
        return Caller(self._users[digest], digest)


def read_tokens(path: Path | None) -> Tokens:
    """The tokens of a file, or of the environment.

    Each line has a token, for all users, or a token, a blank and a user id; lines that begin with # are remarks.
    Raises InputError: the file cannot be read, or a line is not right.
    """
    if path is None:
        return Tokens(_parsed(os.environ.get(VARIABLE, "").splitlines(), VARIABLE))
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"--token-file {path}: cannot be read ({error})") from error
    users = _parsed(lines, str(path))
    if not users:
        raise InputError(f"--token-file {path}: holds no token")
    return Tokens(users)


class RateLimit:
    """At most so many requests a minute of each caller, over a moving window."""

    def __init__(self, per_minute: int) -> None:
        self._limit = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def count(self, key: str) -> None:
        """Take down a request. Raises Refusal: it is one too many; says when there is room again."""
        if not self._limiter.hit(self._limit, key):
            seconds = max(1, round(self._limiter.get_window_stats(self._limit, key).reset_time - time.time()))
            raise Refusal(
                429, "rate", f"more than {self._limit.amount} requests in a minute", {"Retry-After": str(seconds)}
            )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _parsed(lines: Iterable[str], label: str) -> dict[str, str | None]:
    users: dict[str, str | None] = {}
    for number, line in enumerate(lines, start=1):
        token, _, user = line.strip().partition(" ")
        if not token or token.startswith("#"):
            continue
        place = f"{label}, line {number}"
        if len(token) < LEAST_LENGTH or not (token.isascii() and token.replace("-", "").replace("_", "").isalnum()):
            raise InputError(
                f"{place}: expected a token of at least {LEAST_LENGTH} letters, digits, - and _: make one with "
                "python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        if token in users:
            raise InputError(f"{place}: the token is there twice")
        users[token] = check_user_id(user.strip(), place) if user.strip() else None
    return users
