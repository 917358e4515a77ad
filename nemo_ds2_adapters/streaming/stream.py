"""One person's speech, arriving in chunks."""

import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import soxr
import torch
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
from torch import Tensor

from nemo_ds2_adapters.data.recordings import samples_of
from nemo_ds2_adapters.decoding.incremental import Partial
from nemo_ds2_adapters.errors import InputError, NemoDs2Error, StreamError
from nemo_ds2_adapters.streaming.features import NO_SAMPLES, PendingSamples
from nemo_ds2_adapters.streaming.lease import Lease
from nemo_ds2_adapters.streaming.transcript import Transcript

ENDED = "the stream has ended: open another one"


class Steps(Protocol):
    """What a stream needs of its recogniser."""

    def step(self) -> int:
        """Recognise some of what waits."""

    def release_closed(self) -> None:
        """Give back what closed streams held."""


class Turn(NamedTuple):
    """What a stream gives to a step."""

    stream: "Stream"
    samples: Tensor
    is_last: bool


class Stream:
    """Made by `Recogniser.open`. Any thread may call its methods; one that is dropped is closed.

    Attributes:
        lease: on the adapter, None for the base.
        state: of the encoder, one row.
        pending: samples that frames to come will see.
    """

    def __init__(
        self,
        recogniser: Steps,
        state: Tensor,
        lease: Lease | None,
        transcript: Transcript,
        resampler: soxr.ResampleStream | None,
        on_close: Callable[[Lease | None], object],
    ) -> None:
        self.lease = lease
        self.state = state
        self.pending = PendingSamples()
        self._recogniser = recogniser
        self._transcript = transcript
        self._resampler = resampler
        self._lock = threading.Lock()  # guards all that follows, and the transcript
        self._waiting: list[Tensor] = []  # samples that no step has taken
        self._is_ended = False  # no more samples will come
        self._result: Hypothesis | None = None
        self._error: NemoDs2Error | None = None
        self._close = weakref.finalize(self, on_close, lease)
        self._close.atexit = False

    @property
    def partial(self) -> Partial:
        """The text so far, of what steps have taken. Raises NemoDs2Error: the stream has failed."""
        with self._lock:
            self._check_not_failed()
            return self._transcript.partial

    @property
    def segments(self) -> list[Hypothesis]:
        """What is final: one hypothesis for each stretch of speech that a pause, or the end, has ended."""
        with self._lock:
            self._check_not_failed()
            return list(self._transcript.segments)

    def feed(self, samples: "np.ndarray | Tensor") -> None:
        """Hand over what has arrived; the next steps recognise it.

        Args:
            samples: `[T]`, any number of them, at the stream's sample rate; floats of -1 to 1, or int16.

        Raises:
            InputError: they are no samples, or not finite. The stream goes on without them.
            StreamError: the stream has ended or failed (UnknownUserError if its user was erased).
        """
        found = samples_of(samples, "samples")
        if not np.isfinite(found).all():
            raise InputError(f"{int((~np.isfinite(found)).sum())} of {len(found)} samples are not finite")
        with self._lock:
            self._check_open()
            self._take_in(found)

    def finish(self) -> Hypothesis:
        """Recognise what was fed to its end, and close the stream.

        Returns:
            text, `timestamp` with `word`, `char` and `segment`, in seconds of the stream, and confidences: what the
            whole recording would give.

        Raises:
            StreamError: the stream has ended or failed.
        """
        with self._lock:
            self._check_open()
            if self._resampler is not None:
                self._take_in(np.zeros(0, np.float32), last=True)
            self._is_ended = True
        while True:
            with self._lock:
                self._check_not_failed()
                if self._result is not None:
                    return self._result
            self._recogniser.step()

    def close(self) -> None:
        """End the stream without a result, and let its adapter go; nothing happens if it has ended already."""
        with self._lock:
            self._is_ended = True
            if self._result is None and self._error is None:
                self._error = StreamError("the stream was closed: open another one")
            self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def take(self, most: int) -> Turn | None:
        """For a step: at most so many of the samples that wait; None if there is nothing to do."""
        with self._lock:
            if not self._close.alive or not (self._waiting or self._is_ended):
                return None
            waiting = torch.cat([NO_SAMPLES, *self._waiting])
            self._waiting = [waiting[most:]] if len(waiting) > most else []
            return Turn(self, waiting[:most], self._is_ended and not self._waiting)

    def accept(self, log_probs: np.ndarray, pending: PendingSamples, state: Tensor, is_last: bool) -> None:
        """From a step: log probabilities `[T, V]` of a turn, and what to go on with."""
        with self._lock:
            if not self._close.alive:
                return
            self.pending, self.state = pending, state
            self._transcript.accept(log_probs)
            if is_last:
                self._result = self._transcript.finish()
                self._drop()

    def fail(self, error: Exception) -> None:
        """From a step: why the stream cannot go on, which its owner is told by the next call."""
        if not isinstance(error, NemoDs2Error):
            failed = StreamError(f"the stream failed, open another one: {type(error).__name__}: {error}")
            failed.__cause__ = error
            error = failed
        with self._lock:
            self._error = self._error or error
            self._drop()

    def _take_in(self, samples: np.ndarray, **options: Any) -> None:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, **options)
        if len(samples):
            self._waiting.append(torch.from_numpy(samples))

    def _drop(self) -> None:
        self._waiting = []
        self._close()
        self._recogniser.release_closed()

    def _check_not_failed(self) -> None:
        if self._error is not None:
            raise self._error

    def _check_open(self) -> None:
        self._check_not_failed()
        if self._is_ended:
            raise StreamError(ENDED)
