"""What runs in every replica of a service over Ray: the base, a bank, and the queue before the model."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from io import BytesIO
from itertools import count
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
from prometheus_client import Metric
from ray import serve
from starlette.concurrency import run_in_threadpool

from nemo_ds2_adapters.decoding.incremental import Partial
from nemo_ds2_adapters.errors import NemoDs2Error
from nemo_ds2_adapters.serving.base import Kind, ServedBase
from nemo_ds2_adapters.serving.recognition import LocalRecognition, Recognised
from nemo_ds2_adapters.serving.refusal import busy
from nemo_ds2_adapters.serving.settings import ServiceSettings
from nemo_ds2_adapters.serving.talks import Mode, Talk

ORPHAN_SECONDS = 60.0  # after which a talk that nobody asks for has lost its service

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")
Method = Callable[Concatenate["Replica", Arguments], Awaitable[Answer]]


def returning_errors(method: Method[Arguments, Answer]) -> Method[Arguments, Answer | NemoDs2Error]:
    """What is wrong with a request is an answer: Ray would log what is raised, and it may name a person."""

    @wraps(method)
    async def answered(self: "Replica", *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer | NemoDs2Error:
        try:
            return await method(self, *args, **kwargs)
        except NemoDs2Error as error:
            return error

    return answered


@dataclass
class Heard:
    """A talk in a replica."""

    talk: Talk
    asked: float  # when it was last asked for, monotonic seconds


class Replica:
    """Recognises for the process that is called over HTTP, whose requests arrive by `ClusterRecognition`."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._id = serve.get_replica_context().replica_id.unique_id
        self._recognition = LocalRecognition(ServedBase(settings))
        self._numbers = count()
        self._talks: dict[int, Heard] = {}

    @returning_errors
    async def transcribe(
        self, file: bytes, user: str | None, words: Sequence[str] | None, timestamps: bool
    ) -> Recognised:
        """See `Recognition`."""
        return await self._recognition.transcribe(BytesIO(file), user, words, timestamps)

    @returning_errors
    async def open_talk(self, user: str | None, kind: Kind, sample_rate: int) -> tuple[str, int, Mode]:
        """Begin a talk: this replica's id, the talk's number in it, and its mode."""
        now = time.monotonic()
        for number in [number for number, one in self._talks.items() if now - one.asked > ORPHAN_SECONDS]:
            self._end(number)
        number, talk = next(self._numbers), await self._recognition.open_talk(user, kind, sample_rate)
        self._talks[number] = Heard(talk, now)
        return self._id, number, talk.mode

    @returning_errors
    async def hear(self, replica: str, number: int, samples: np.ndarray, is_end: bool) -> Partial | Hypothesis | None:
        """Go on with a talk: the next samples, int16 `[T]`; its text so far, if that is new, or what was said."""
        if replica != self._id or number not in self._talks:
            raise busy("the replica that listened has gone: begin anew")
        heard = self._talks[number]
        heard.asked = time.monotonic()
        if len(samples):
            heard.talk.feed(samples)
        return await (heard.talk.finish() if is_end else heard.talk.partial())

    async def close_talk(self, replica: str, number: int) -> None:
        """End a talk."""
        if replica == self._id and number in self._talks:
            self._end(number)

    async def forget(self, user: str) -> tuple[str, None]:
        """Keep nothing of somebody; this replica's id."""
        await run_in_threadpool(self._recognition.forget, user)
        return self._id, None

    async def metrics(self) -> tuple[str, list[Metric]]:
        """This replica's id, and its counters."""
        return self._id, list(await run_in_threadpool(self._recognition.metrics))

    def _end(self, number: int) -> None:
        self._recognition.close_talk(self._talks.pop(number).talk)
