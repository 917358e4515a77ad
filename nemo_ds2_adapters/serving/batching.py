"""One model for everybody: recordings that arrive at about the same time are recognised in one batch."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread

import numpy as np
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.errors import NemoDs2Error
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.recognition.batches import padded
from nemo_ds2_adapters.recognition.residents import Resident
from nemo_ds2_adapters.recognition.serving import on_device, serving
from nemo_ds2_adapters.serving.metrics import RecognitionMetrics
from nemo_ds2_adapters.serving.refusal import busy

SIMILAR = 1.5  # recordings in a batch are at most so many times as long as one another

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Waiting:
    """A recording in the queue."""

    samples: np.ndarray  # [T] at the model's rate
    user: str | None  # whose adapter of the bank; None for the base
    arrived: float = field(default_factory=time.monotonic)
    output: "Future[np.ndarray]" = field(default_factory=Future)  # log probabilities [T', V]


class RecognitionQueue:
    """The queue before the model, and the thread that runs it.

    Args:
        model: in which nobody else enables adapters, or changes modes, until the queue is closed.
        bank: its adapters.
        batch_size: recordings per batch.
        wait_seconds: that the first recording of a batch waits for others.
        size: most recordings that wait.
        metrics: are told of batches.
    """

    def __init__(
        self,
        model: EncDecCTCModel,
        bank: AdapterBank,
        batch_size: int,
        wait_seconds: float,
        size: int,
        metrics: RecognitionMetrics,
    ) -> None:
        self._model, self._bank = model, bank
        self._batch_size, self._wait_seconds, self._size = batch_size, wait_seconds, size
        self._metrics = metrics
        self._waiting: list[Waiting] = []  # in the order of arrival
        self._changed = Condition()  # guards it
        self._is_closed = False
        self._thread = Thread(target=self._run, name="recognition", daemon=True)
        self._thread.start()

    def submit(self, recordings: Sequence[np.ndarray], user: str | None) -> "list[Future[np.ndarray]]":
        """Take recordings `[T]` of one user into the queue, all of them or none. Raises Refusal: there is no room."""
        new = [Waiting(samples, user) for samples in recordings]
        with self._changed:
            if self._is_closed:
                raise busy("the service is stopping")
            if self._waiting and len(self._waiting) + len(new) > self._size:
                raise busy(f"{len(self._waiting)} recordings wait already")
            self._waiting += new
            self._metrics.waiting.set(len(self._waiting))
            self._changed.notify_all()
        return [waiting.output for waiting in new]

    def close(self) -> None:
        """Recognise what waits, and end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        with serving(self._model, routed=True):
            while batch := self._next():
                self._recognise(batch)

    def _next(self) -> list[Waiting]:
        """The next batch; empty when the queue is closed and nobody waits any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._waiting:
                return []
            left = self._waiting[0].arrived + self._wait_seconds - time.monotonic()
            self._changed.wait_for(lambda: len(self._waiting) >= self._batch_size or self._is_closed, max(0.0, left))
            batch = similar(self._waiting, self._batch_size)
            taken = set(map(id, batch))
            self._waiting = [one for one in self._waiting if id(one) not in taken]
            self._metrics.waiting.set(len(self._waiting))
        return [one for one in batch if one.output.set_running_or_notify_cancel()] or self._next()

    def _recognise(self, batch: list[Waiting]) -> None:
        held = self._held({one.user for one in batch if one.user is not None}, batch)
        batch = [one for one in batch if not one.output.done()]
        try:
            if batch:
                self._compute(batch, [None if one.user is None else held[one.user] for one in batch])
        except Exception as error:
            if not isinstance(error, NemoDs2Error):
                logger.exception("a batch has failed")
            _fail(batch, error)
        finally:
            for resident in held.values():
                self._bank.let_go(resident)

    def _held(self, users: set[str], batch: Sequence[Waiting]) -> dict[str, Resident]:
        """The users' adapters; where one cannot be used, those who wait for it are told."""
        held = {}
        for user in users:
            try:
                held[user] = self._bank.hold(user)
            except NemoDs2Error as error:
                _fail([one for one in batch if one.user == user], error)
        return held

    def _compute(self, batch: list[Waiting], residents: Sequence[Resident | None]) -> None:
        started = time.monotonic()
        samples, counts = on_device(self._model, *padded([one.samples for one in batch]))
        with self._bank.route_held(residents):
            log_probs, frames, _ = self._model(input_signal=samples, input_signal_length=counts)
        outputs = log_probs.float().cpu().numpy()
        self._metrics.batch_size.observe(len(batch))
        self._metrics.batch_seconds.observe(time.monotonic() - started)
        for one, output, length in zip(batch, outputs, frames.tolist()):
            one.output.set_result(output[:length].copy())


def similar(waiting: Sequence[Waiting], most: int) -> list[Waiting]:
    """The first that waits, and others in the order of arrival that are about as long: little is padded."""
    shortest = longest = len(waiting[0].samples)
    batch: list[Waiting] = []
    for one in waiting:
        low, high = min(shortest, len(one.samples)), max(longest, len(one.samples))
        if high <= SIMILAR * low:
            shortest, longest = low, high
            batch.append(one)
            if len(batch) == most:
                break
    return batch


def _fail(batch: Sequence[Waiting], error: Exception) -> None:
    for one in batch:
        one.output.set_exception(error)
