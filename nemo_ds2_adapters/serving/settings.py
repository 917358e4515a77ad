"""What a service is told, in plain values, checked before a model is loaded."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_ds2_adapters.errors import InputError

LOOPBACK = ("127.0.0.1", "::1", "localhost")  # where nobody but this machine can knock


@dataclass(frozen=True)
class ServiceSettings:
    """How a service behaves. Raises InputError: a value is not what it must be."""

    model: Path  # the base, a `.nemo`
    store: Path  # a local folder: recordings lie in it, beside the adapters
    prior: Path | None = None
    lm: Path | None = None  # ARPA file of a word language model
    prompts: Path | None = None  # sentences to be read aloud; None: the shipped ones
    host: str = "127.0.0.1"
    port: int = 8000
    allow_origin: tuple[str, ...] = ()  # of web pages, beside the service's own, that may call it
    keep_recordings: float = 0.0  # days; 0: until an adapter was trained of them, a day at most; inf: for good
    max_upload_mb: float = 25.0  # of a request
    max_seconds: float = 600.0  # of a recording
    upload_seconds: float = 30.0  # in which a request must have arrived
    requests_per_minute: int = 600  # of one token, or without tokens of one address
    batch_size: int = 16  # recordings recognised together
    wait_ms: float = 5.0  # that the first recording of a batch waits for others
    queue_size: int = 256  # recordings that wait; more are refused
    resident: int = 256  # users whose adapters are in memory
    training_threads: int = 1
    training_niceness: int = 19  # 0 to 19: how far training gives way to everything else

    def __post_init__(self) -> None:
        for name in ("batch_size", "queue_size", "requests_per_minute", "training_threads"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("max_upload_mb", "max_seconds", "upload_seconds"):
            self._check(name, 0 < getattr(self, name) < math.inf, "above 0")
        for name in ("wait_ms", "keep_recordings"):
            self._check(name, getattr(self, name) >= 0, "at least 0")
        self._check("resident", self.resident >= self.batch_size, f"at least --batch-size, {self.batch_size}")
        self._check("training_niceness", 0 <= self.training_niceness <= 19, "0 to 19")
        self._check("port", 0 <= self.port <= 65535, "0 to 65535")
        for origin in self.allow_origin:
            self._check("allow_origin", origin.startswith(("http://", "https://")), "http://host or https://host")

    @property
    def max_bytes(self) -> int:
        """Of a request's body."""
        return int(self.max_upload_mb * 1_000_000)

    def _check(self, name: str, is_right: bool, expected: str) -> None:
        if not is_right:
            value: Any = getattr(self, name)
            raise InputError(f"--{name.replace('_', '-')} {value}: expected {expected}")
