"""The training of one person's adapter: what became of it so far, as it stands in its file."""

import json
import secrets
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

State = Literal["queued", "running", "done", "failed", "erased"]


@dataclass
class Job:
    """A training that was asked for."""

    user: str
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    state: State = "queued"
    created: float = field(default_factory=time.time)  # seconds since 1970, as all times here
    started: float | None = None
    trained_since: float | None = None  # when the worker has begun, which may have had to load the model before
    ended: float | None = None
    starts: int = 0
    stage: str = "waiting"
    share: float = 0.0  # of the work that is done, 0 to 1
    result: dict[str, Any] | None = None  # of a job that is done: what is kept, and why
    problem: dict[str, str] | None = None  # of a job that has failed: `code` and `detail`

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed", "erased")

    @property
    def seconds_left(self) -> float | None:
        """As far as can be told."""
        if self.state != "running" or self.trained_since is None or not self.share:
            return None
        return (time.time() - self.trained_since) * (1 - self.share) / self.share


def read_job(path: Path) -> Job:
    """The job of a file; what another version wrote, or damage, is any of OSError, ValueError, TypeError, KeyError."""
    values = json.loads(path.read_text("utf-8"))
    return Job(**{one.name: values[one.name] for one in fields(Job)})
