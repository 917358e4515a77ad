"""Speech that is recognised while it arrives: by the model's own streams, or by recognising it all again and again."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from threading import Event, Thread
from typing import Literal, Protocol

import numpy as np
import soxr
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
from starlette.concurrency import run_in_threadpool

from nemo_ds2_adapters.decoding.incremental import Partial
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.serving.base import Kind, ServedBase
from nemo_ds2_adapters.serving.refusal import Refusal
from nemo_ds2_adapters.streaming.recogniser import Recogniser, check_streams

MOST_TALKS = 64
IDLE_SECONDS = 0.02  # between looks for something to do
REPEATED_SECONDS = 60.0  # most that is recognised again and again
LEAST_SECONDS = 0.1  # of speech before anything is recognised

Mode = Literal["stream", "repeated"]
# Samples, whose adapter, of which kind, words, whether times are wanted: what is said.
Recognise = Callable[[np.ndarray, str | None, Kind, Sequence[str], bool], Awaitable[Hypothesis]]

logger = logging.getLogger(__name__)


class Talk(Protocol):
    """One person's speech, as it arrives."""

    mode: Mode

    def feed(self, samples: np.ndarray) -> None:
        """Take the next samples, int16 `[T]`."""

    async def partial(self) -> Partial | None:
        """The text so far; None if there is nothing new."""

    async def finish(self) -> Hypothesis:
        """What was said."""

    def close(self) -> None:
        """End without a result."""


class Talks:
    """Opens talks, and has the model's streams computed in a thread of its own.

    Args:
        base: the model and its store.
        bank: its adapters.
        recognise: whole recordings, for a model that cannot stream.
    """

    def __init__(self, base: ServedBase, bank: AdapterBank, recognise: Recognise) -> None:
        self._base, self._recognise = base, recognise
        self._open = 0
        self._recogniser: Recogniser | None = None
        try:
            check_streams(base.model)
        except InputError as error:
            logger.info("speech is recognised again and again while it arrives: %s", error)
            return
        self._recogniser = Recogniser(base.model, bank, search=base.search_settings)
        self._is_closed = Event()
        self._thread = Thread(target=self._step, name="streams", daemon=True)
        self._thread.start()

    def open(self, user: str | None, kind: Kind, sample_rate: int) -> Talk:
        """Begin one; it is to be handed back to `close`.

        Raises:
            Refusal: there are too many.
            NemoDs2Error: the adapter cannot be used.
        """
        if self._open >= MOST_TALKS:
            raise Refusal(503, "busy", f"{MOST_TALKS} people are speaking already")
        talk: Talk
        if self._recogniser is None:
            talk = RepeatedTalk(self._base, self._recognise, user, kind, sample_rate)
        else:
            words = self._base.words_of(user, None)
            talk = StreamedTalk(self._recogniser, None if kind == "base" else user, words, sample_rate)
        self._open += 1
        return talk

    def close(self, talk: Talk) -> None:
        """End one."""
        self._open -= 1
        talk.close()

    def stop(self) -> None:
        """End the thread."""
        if self._recogniser is not None:
            self._is_closed.set()
            self._thread.join()

    def _step(self) -> None:
        assert self._recogniser is not None
        while not self._is_closed.is_set():
            if not self._recogniser.step():
                self._is_closed.wait(IDLE_SECONDS)


class StreamedTalk:
    """A stream of the model."""

    mode: Mode = "stream"

    def __init__(self, recogniser: Recogniser, user: str | None, words: Sequence[str], sample_rate: int) -> None:
        self._stream = recogniser.open(user, words, sample_rate)
        self._last = Partial()

    def feed(self, samples: np.ndarray) -> None:
        """See `Talk`."""
        self._stream.feed(samples)

    async def partial(self) -> Partial | None:
        """See `Talk`."""
        now = self._stream.partial
        if now == self._last:
            return None
        self._last = now
        return now

    async def finish(self) -> Hypothesis:
        """See `Talk`."""
        return await run_in_threadpool(self._stream.finish)

    def close(self) -> None:
        """See `Talk`."""
        self._stream.close()


class RepeatedTalk:
    """All that has arrived, recognised anew, since the model needs the end of an utterance to begin with."""

    mode: Mode = "repeated"

    def __init__(self, base: ServedBase, recognise: Recognise, user: str | None, kind: Kind, sample_rate: int) -> None:
        self._recognise_all, self._user, self._kind = recognise, user, kind
        self._rate, self._model_rate = sample_rate, base.sample_rate
        self._words = base.words_of(user, None)
        self._samples = np.zeros(0, np.float32)
        self._recognised = 0  # samples

    def feed(self, samples: np.ndarray) -> None:
        """See `Talk`."""
        self._samples = np.concatenate([self._samples, samples.astype(np.float32) / 2**15])
        if len(self._samples) > REPEATED_SECONDS * self._rate:
            raise Refusal(413, "too_long", f"more than {REPEATED_SECONDS:g} s, which this model cannot stream")

    async def partial(self) -> Partial | None:
        """See `Talk`."""
        count = len(self._samples)
        if count == self._recognised or count < LEAST_SECONDS * self._rate:
            return None
        try:
            text = (await self._recognise(timestamps=False)).text
        except Refusal as error:
            if error.status == 503:  # others wait already: the next time is soon enough
                return None
            raise
        self._recognised = count
        return Partial("", text)

    async def finish(self) -> Hypothesis:
        """See `Talk`."""
        missing = max(0, round(LEAST_SECONDS * self._rate) - len(self._samples))
        self._samples = np.pad(self._samples, (0, missing))
        return await self._recognise(timestamps=True)

    def close(self) -> None:
        """See `Talk`."""
        self._samples = np.zeros(0, np.float32)

    async def _recognise(self, timestamps: bool) -> Hypothesis:
        samples = self._samples
        if self._rate != self._model_rate:
            samples = await run_in_threadpool(soxr.resample, samples, self._rate, self._model_rate)
        return await self._recognise_all(samples, self._user, self._kind, self._words, timestamps)
