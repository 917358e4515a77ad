"""The process that trains adapters beside the service, niced, so that recognition stays quick.

It writes nothing of what it makes but into a folder that it is given, and ends when the service does.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from nemo_ds2_adapters.formats.scratch import own_temporary_folder, sweep_scratch


@dataclass(frozen=True)
class Task:
    """An adapter to be trained."""

    user: str
    recordings: tuple[tuple[Path, str, float], ...]  # file, text, seconds
    output: Path  # folder of a store that holds the adapter alone


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker process works with."""

    model: Path
    prior: Path | None
    threads: int
    niceness: int


class WorkerDiedError(Exception):
    """The process has ended before the work was done."""


class Worker:
    """The process, seen from the service. It is started when it is first needed, and again after it has died."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._context = multiprocessing.get_context("spawn")  # a fork would copy the model's locked threads
        self._process: Any = None
        self._connection: Any = None

    def start(self) -> None:
        """Make sure that the process runs; loading the model takes some ten seconds more."""
        if self._process is None or not self._process.is_alive():
            self._connection, other = self._context.Pipe()
            arguments = (other, self._settings)
            self._process = self._context.Process(target=work, args=arguments, name="training", daemon=True)
            self._process.start()
            other.close()

    def train(self, task: Task, on_message: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Have an adapter trained: a speaker's result, as plain values.

        `on_message` is called with `stage` and `share` (0 to 1) of the work that is done, again and again.

        Raises:
            WorkerDiedError: the process has ended.
        """
        self.start()
        try:
            self._connection.send(task)
            while True:
                message = self._connection.recv()
                if "result" in message:
                    return message["result"]
                on_message(message)
        except (EOFError, OSError) as error:
            raise WorkerDiedError from error

    def kill(self) -> None:
        """End the process at once; of what it was doing nothing remains."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            sweep_scratch()


def work(connection: Connection, settings: WorkerSettings) -> None:
    """The process: train one task after another, until the service ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal, for the service: it ends this process itself
    os.nice(settings.niceness)
    logging.disable(logging.WARNING)  # NeMo's long notes on schedules
    threading.Thread(target=_end_with_the_service, daemon=True).start()
    from nemo_ds2_adapters.serving.training.trainer import Trainer

    with own_temporary_folder(), suppress(EOFError):
        trainer = Trainer(settings)
        while True:
            task = connection.recv()
            connection.send({"result": asdict(trainer.train(task, connection.send))})


def _end_with_the_service() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
