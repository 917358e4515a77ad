"""What the service does not do, said so that a client can go by it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from nemo_ds2_adapters.errors import NemoDs2Error

RETRY_SECONDS = 2  # until a client had better try again


class Refusal(NemoDs2Error):
    """A request that the service does not carry out.

    Args:
        status: of HTTP.
        code: what a program goes by.
        detail: for a person.
        headers: of the answer.
        more: further members of the problem details.
    """

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.headers, self.more = status, code, dict(headers or {}), more

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Refusal, **self.more), (self.status, self.code, str(self), self.headers)


def busy(detail: str) -> Refusal:
    """The refusal of what would make a queue grow without end."""
    return Refusal(503, "busy", detail, {"Retry-After": str(RETRY_SECONDS)})
