"""How far a run is, in lines for a person."""

import resource
import time
from collections.abc import Callable
from datetime import timedelta

from nemo_ds2_adapters.adaptation.report import SpeakerResult

EVERY = 10.0  # seconds


class Progress:
    """Counts what comes of the groups of a run, and tells it from time to time.

    Args:
        seconds: of speech, of everybody.
        say: is told a line.
    """

    def __init__(self, seconds: float, say: Callable[[str], object]) -> None:
        self.users = self.trained = self.skipped = 0
        self.core_seconds = 0.0
        self._all, self._say = seconds, say
        self._done = 0.0  # seconds of speech
        self._began = self._told = time.monotonic()

    def add(self, results: list[SpeakerResult], seconds: float, core_seconds: float) -> None:
        """A group of users with so many seconds of speech is over, which took so much processor time."""
        is_first = not self.users
        self.users += len(results)
        self.skipped += sum(one.problem is not None for one in results)
        trained = sum(one.problem is None and one.status != "finished before" for one in results)
        self.trained += trained
        self.core_seconds += core_seconds if trained else 0.0
        self._done += seconds
        if is_first or time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            self._say(self.line())

    def line(self) -> str:
        """Where things stand."""
        elapsed = time.monotonic() - self._began
        share = min(self._done / self._all, 1.0) if self._all else 1.0
        left = timedelta(seconds=round(elapsed * (1 / share - 1))) if share else "unknown time"
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000  # of kB
        cost = f"{self.core_seconds / self.trained:.2f} core-seconds each" if self.trained else "none trained yet"
        return (
            f"{100 * share:.0f} %: {self.users} users after {elapsed:.0f} s ({self.users / elapsed:.2f} a second), "
            f"{cost}, {self.skipped} skipped; {left} left; this process has taken {memory:.0f} MB at most"
        )
