"""What a service has recognised for it: in its own process, or by others (`cluster/serve.py`)."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import BinaryIO, Protocol

import numpy as np
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
from prometheus_client import Metric
from starlette.concurrency import run_in_threadpool

from nemo_ds2_adapters.decoding.decoder import Decoder
from nemo_ds2_adapters.errors import UnknownUserError
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.recognition.windows import join_windows, plan_windows
from nemo_ds2_adapters.serving.base import Kind, ServedBase
from nemo_ds2_adapters.serving.batching import RecognitionQueue
from nemo_ds2_adapters.serving.metrics import RecognitionMetrics
from nemo_ds2_adapters.serving.talks import Talk, Talks

WINDOW_SECONDS, OVERLAP_SECONDS = 40.0, 4.0  # as `transcribe` cuts long recordings


@dataclass(frozen=True)
class Recognised:
    """What is said in a recording."""

    hypothesis: Hypothesis
    kind: Kind  # of the adapter
    seconds: float  # of the recording


class Recognition(Protocol):
    """Recognises recordings and talks; calls that are not `async` are for threads."""

    async def transcribe(
        self, file: BinaryIO, user: str | None, words: Sequence[str] | None, timestamps: bool
    ) -> Recognised:
        """What is said in an uploaded recording.

        Args:
            file: the upload.
            user: whose adapter is used; None for the base.
            words: that decoding favours in place of the user's.
            timestamps: whether those of words and segments are computed.

        Raises:
            Refusal: the recording is not taken, or too many wait.
            UnknownUserError: the user was erased meanwhile.
            NemoDs2Error: the adapter cannot be used.
        """

    async def open_talk(self, user: str | None, kind: Kind, sample_rate: int) -> Talk:
        """Begin to listen to somebody, at `sample_rate` Hz; to be handed back to `close_talk`. Raises Refusal."""

    def close_talk(self, talk: Talk) -> None:
        """End one. Waits for nothing, and may be called anywhere."""

    def forget(self, user: str) -> None:
        """Keep nothing of somebody in memory, whom the store does not know any more."""

    def metrics(self) -> Iterable[Metric]:
        """For Prometheus."""

    def close(self) -> None:
        """Recognise what waits, and stop."""


class LocalRecognition:
    """In this process: a bank, and a queue before the model.

    Args:
        base: the model, which nobody else runs meanwhile.

    Raises:
        InputError: the model takes no adapters per row.
        AdapterFileError: the population's adapter does not fit it.
    """

    def __init__(self, base: ServedBase) -> None:
        self._base, settings = base, base.settings
        self._metrics = RecognitionMetrics()
        # Versions are compared at every batch: who was trained is served so at once, who was erased not any more.
        capacity = settings.resident
        self._bank = AdapterBank(base.model, base.store, base.default, capacity=capacity, check_seconds=0.0)
        self._decoder, self._timing_decoder = Decoder(base.model), Decoder(base.model, timestamps=True)
        self._decoding = Lock()
        self._queue = RecognitionQueue(
            base.model, self._bank, settings.batch_size, settings.wait_ms / 1000, settings.queue_size, self._metrics
        )
        self._talks = Talks(base, self._bank, self._recognise)

    async def transcribe(
        self, file: BinaryIO, user: str | None, words: Sequence[str] | None, timestamps: bool
    ) -> Recognised:
        """See `Recognition`."""
        samples = await run_in_threadpool(self._base.read, file)
        kind = await run_in_threadpool(self._base.adapter_of, user)
        favoured = await run_in_threadpool(self._base.words_of, user, words)
        hypothesis = await self._recognise(samples, user, kind, favoured, timestamps)
        return Recognised(hypothesis, kind, len(samples) / self._base.sample_rate)

    async def open_talk(self, user: str | None, kind: Kind, sample_rate: int) -> Talk:
        """See `Recognition`."""
        return await run_in_threadpool(self._talks.open, user, kind, sample_rate)

    def close_talk(self, talk: Talk) -> None:
        """See `Recognition`."""
        self._talks.close(talk)

    def forget(self, user: str) -> None:
        """See `Recognition`."""
        with suppress(UnknownUserError):
            self._bank.check_user(user)  # which notices it, and gives the slot to others

    def metrics(self) -> Iterable[Metric]:
        """See `Recognition`."""
        return self._metrics.collect(self._bank.statistics)

    def close(self) -> None:
        """See `Recognition`."""
        self._talks.stop()
        self._queue.close()

    async def _recognise(
        self, samples: np.ndarray, user: str | None, kind: Kind, words: Sequence[str], timestamps: bool
    ) -> Hypothesis:
        """What is said in `[T]` samples at the model's rate; `kind` and `words` as `ServedBase` says them."""
        frame, rate = self._decoder.frame_seconds, self._base.sample_rate
        seconds = len(samples) / rate
        windows = plan_windows(seconds / frame, WINDOW_SECONDS / frame, OVERLAP_SECONDS / frame)
        starts = [round(window.start * frame * rate) for window in windows]
        counts = [round(window.seconds(frame, seconds) * rate) for window in windows]
        parts = [samples[start : start + count] for start, count in zip(starts, counts)]
        futures = self._queue.submit(parts, None if kind == "base" else user)
        outputs = await asyncio.gather(*map(asyncio.wrap_future, futures))
        self._metrics.speech.labels(kind).inc(seconds)
        return await run_in_threadpool(self._decoded, join_windows(windows, outputs), words, timestamps)

    def _decoded(self, log_probs: np.ndarray, words: Sequence[str], timestamps: bool) -> Hypothesis:
        log_probs = self._base.search.found(log_probs, words)
        with self._decoding:
            return (self._timing_decoder if timestamps else self._decoder)([log_probs])[0]
