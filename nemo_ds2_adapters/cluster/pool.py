"""Workers of a cluster that take tasks as they become free; what a lost one had is done by another."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError

from nemo_ds2_adapters.errors import ClusterError, NemoDs2Error

LOST = (NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError)
MOST_LOSSES = 3  # of workers: with the same task, or before they were ready

T = TypeVar("T")


@dataclass(frozen=True)
class GivenUp:
    """What came of a task that could not be done, and why."""

    reason: str


class Pool:
    """Workers, each with one task at a time, so that nothing is handed out before somebody can do it.

    Args:
        start: starts a worker, an actor with a method `ready`, which ends when it can take tasks.
        size: number of workers.
        say: is told in a line that one was lost.
    """

    def __init__(self, start: Callable[[], ActorHandle], size: int, say: Callable[[str], object]) -> None:
        self._start, self._say = start, say
        self._free: list[ActorHandle] = []
        self._busy: dict[ray.ObjectRef, tuple[ActorHandle, list[Any] | None]] = {}  # None: is not ready yet
        self._failures = 0  # of workers in a row that were lost before they were ready
        for _ in range(size):
            self._add_worker()

    def wait(self) -> None:
        """Until all workers are ready, or lost."""
        ray.wait([*self._busy], num_returns=len(self._busy))

    def run(self, method: str, tasks: Iterable[list[T]], *shared: Any) -> Iterator[tuple[list[T], Any]]:
        """Do tasks, in any order, by calling a method of a worker with each and the same further arguments.

        A task whose worker is lost, or fails as it should not, is done once more, after that item by item.

        Yields:
            each task and what came of it; `GivenUp` for an item with which that happened three times.

        Raises:
            NemoDs2Error: a worker raised it.
            ClusterError: no worker becomes ready.
        """
        source = iter(tasks)
        again: deque[tuple[list[T], int]] = deque()  # tasks with the number of workers that were lost with them
        losses: dict[ray.ObjectRef, int] = {}
        while True:
            while self._free:
                task, lost = again.popleft() if again else (next(source, None), 0)
                if task is None:
                    break
                worker = self._free.pop()
                reference = getattr(worker, method).remote(task, *shared)
                self._busy[reference], losses[reference] = (worker, task), lost
            if not losses and self._free:
                return
            done, _ = ray.wait([*self._busy], num_returns=1)
            worker, task = self._busy.pop(done[0])
            try:
                found = ray.get(done[0])
            except LOST as error:
                reason = _first_line(error)
                self._replace(worker, task is None, reason)
            except RayTaskError as error:
                if isinstance(error.cause, NemoDs2Error):
                    raise error.cause from None
                if task is None:
                    raise
                reason = f"{type(error.cause).__name__}: {_first_line(error.cause)}"
                self._say(f"a worker failed: {reason}")
                self._free.append(worker)
            else:
                self._free.append(worker)
                self._failures = 0
                if task is not None:
                    del losses[done[0]]
                    yield task, found
                continue
            if task is None:
                continue
            lost = losses.pop(done[0]) + 1
            if lost < MOST_LOSSES:
                again.extend(([item], lost) for item in task) if lost > 1 else again.append((task, lost))
            else:
                yield task, GivenUp(f"given up after {lost} workers: {reason}")

    def _add_worker(self) -> None:
        worker = self._start()
        self._busy[worker.ready.remote()] = worker, None

    def _replace(self, worker: ActorHandle, is_new: bool, reason: str) -> None:
        ray.kill(worker)  # it may be one that just cannot be reached
        self._failures += is_new
        if self._failures == MOST_LOSSES:
            raise ClusterError(f"workers end before they are ready: {reason}")
        self._say(f"a worker was lost, another one takes its place: {reason}")
        self._add_worker()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]
