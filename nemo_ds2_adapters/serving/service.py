"""What the service is, without HTTP: a model, a store, a queue before the one, and trainings for the other."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Lock, RLock, Thread
from typing import Any, BinaryIO, Literal

import numpy as np
from nemo.collections.asr.models import EncDecCTCModel
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
from starlette.concurrency import run_in_threadpool

from nemo_ds2_adapters.adaptation.voice_prior.prior import check_fits, read_prior
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.adapters.users import check_user_id
from nemo_ds2_adapters.decoding.decoder import Decoder
from nemo_ds2_adapters.decoding.search import Search, SearchSettings
from nemo_ds2_adapters.errors import InputError, UnknownUserError, UserIdError
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.recognition.windows import join_windows, plan_windows
from nemo_ds2_adapters.serving.audio import read_upload
from nemo_ds2_adapters.serving.auth import RateLimit, Tokens
from nemo_ds2_adapters.serving.batching import RecognitionQueue
from nemo_ds2_adapters.serving.jobs import Job, Jobs
from nemo_ds2_adapters.serving.metrics import Metrics
from nemo_ds2_adapters.serving.prompts import SHIPPED, read_prompts
from nemo_ds2_adapters.serving.recordings import Recording, Recordings
from nemo_ds2_adapters.serving.settings import ServiceSettings
from nemo_ds2_adapters.serving.worker import Worker, WorkerSettings
from nemo_ds2_adapters.store.store import PRIOR, AdapterStore

WINDOW_SECONDS, OVERLAP_SECONDS = 40.0, 4.0  # as `transcribe` cuts long recordings
RESIDENT = 256  # users whose adapters are in memory
SWEEP_SECONDS = 3600.0  # between looks for recordings that are older than they are kept

Kind = Literal["base", "population", "own"]  # of the adapter that somebody is recognised with

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class About:
    """What is known of a person."""

    user: str
    adapter_used: Kind
    adapter: dict[str, Any] | None
    words: Sequence[str]
    recordings: Sequence[Recording]
    job: Job | None


class Service:
    """Recognises, keeps recordings, has adapters trained, and forgets.

    Args:
        settings: of the service.
        tokens: of those who may call.

    Raises:
        InputError: the model is no NeMo CTC model that takes adapters per row, or the prior is not for it.
        AdapterFileError: a file or the store cannot be used.
    """

    def __init__(self, settings: ServiceSettings, tokens: Tokens) -> None:
        self.settings, self.tokens = settings, tokens
        self.rate, self.metrics = RateLimit(settings.requests_per_minute), Metrics()
        self.model = restore_model(str(settings.model), None)
        if not isinstance(self.model, EncDecCTCModel):
            raise InputError(f"{settings.model}: a {type(self.model).__name__}, expected a NeMo CTC model")
        self.model.eval()
        default = None
        if settings.prior is not None:
            prior = read_prior(settings.prior)
            check_fits(prior, fingerprint(self.model))
            default = prior.adapter if prior.helps else None
        self._has_default = default is not None
        self.store = AdapterStore(settings.store)  # made only now: what is refused leaves nothing behind
        self.store.check_writable()
        # Versions are compared at every batch: who was trained is served so at once, who was erased not any more.
        self.bank = AdapterBank(self.model, self.store, default, capacity=RESIDENT, check_seconds=0.0)
        self.sample_rate = int(self.model.cfg.sample_rate)
        self._decoder, self._timing_decoder = Decoder(self.model), Decoder(self.model, timestamps=True)
        self._decoding = Lock()
        self.search = SearchSettings(lm=settings.lm)
        self._search = Search(self.model, self.search)
        self.prompts = read_prompts(settings.prompts or SHIPPED, self.model)
        self._changing = RLock()  # held by who changes what is kept about a person
        self.recordings = Recordings(self.store, self.model, settings.keep_recordings)
        threads, niceness = settings.training_threads, settings.training_niceness
        worker = Worker(WorkerSettings(settings.model, settings.prior, threads, niceness))
        self.jobs = Jobs(self.store, self.recordings, worker, self._changing, self.metrics)
        wait_seconds = settings.wait_ms / 1000
        self.queue = RecognitionQueue(
            self.model, self.bank, settings.batch_size, wait_seconds, settings.queue_size, self.metrics
        )
        self.stopping = Event()
        self._sweeper = Thread(target=self._sweep, name="sweep", daemon=True)
        self._sweeper.start()

    def close(self) -> None:
        """Recognise what waits, and stop; trainings go on at the next start."""
        self.stopping.set()
        self.queue.close()
        self.jobs.close()
        self._sweeper.join()

    def read(self, file: BinaryIO) -> np.ndarray:
        """The samples of an upload, see `read_upload`."""
        return read_upload(file, self.sample_rate, self.settings.max_seconds)

    def adapter_of(self, user: str | None) -> Kind:
        """Which adapter somebody is recognised with."""
        if user is None:
            return "base"
        if self.store.has(user):
            return "own"
        return "population" if self._has_default else "base"

    def words_of(self, user: str | None, given: Sequence[str] | None) -> tuple[str, ...]:
        """Which words decoding favours: those that a request gives, or without any, the user's.

        Raises:
            InputError: the model cannot write one of them.
        """
        if given:
            self._search.check(given)
            return tuple(given)
        return () if user is None else self.store.words(user)

    async def recognise(
        self, samples: np.ndarray, user: str | None, kind: Kind, words: Sequence[str], timestamps: bool
    ) -> Hypothesis:
        """What is said in `[T]` samples.

        Args:
            samples: at the model's rate.
            user: whose adapter is used, unless `kind` is the base.
            kind: as `adapter_of` says.
            words: as `words_of` says.
            timestamps: whether those of words and segments are computed.

        Raises:
            Refusal: the queue is full.
            UnknownUserError: the user was erased meanwhile.
        """
        frame = self._decoder.frame_seconds
        seconds = len(samples) / self.sample_rate
        windows = plan_windows(seconds / frame, WINDOW_SECONDS / frame, OVERLAP_SECONDS / frame)
        starts = [round(window.start * frame * self.sample_rate) for window in windows]
        counts = [round(window.seconds(frame, seconds) * self.sample_rate) for window in windows]
        parts = [samples[start : start + count] for start, count in zip(starts, counts)]
        futures = self.queue.submit(parts, None if kind == "base" else user)
        outputs = await asyncio.gather(*map(asyncio.wrap_future, futures))
        self.metrics.speech.labels(kind).inc(seconds)
        return await run_in_threadpool(self._decoded, join_windows(windows, outputs), words, timestamps)

    def _decoded(self, log_probs: np.ndarray, words: Sequence[str], timestamps: bool) -> Hypothesis:
        log_probs = self._search.found(log_probs, words)
        with self._decoding:
            return (self._timing_decoder if timestamps else self._decoder)([log_probs])[0]

    def record(self, user: str, samples: np.ndarray, text: str) -> tuple[Recording, list[str]]:
        """Keep a recording, see `Recordings.add`."""
        with self._changing:
            return self.recordings.add(user, samples, text)

    def remove_recording(self, user: str, number: int) -> None:
        """Remove a recording, see `Recordings.remove`."""
        with self._changing:
            self.recordings.remove(user, number)

    def about(self, user: str) -> About:
        """What is known of a person.

        Raises:
            UnknownUserError: nothing is.
        """
        adapter = None
        if versions := self.store.versions(user):
            header = self.store.header(user)
            assert header.info is not None
            metadata = {key: header.info.metadata.get(key) for key in ("kind", "reason", "wer_before", "wer_after")}
            adapter = {"version": versions[-1].number, "stored": versions[-1].stored.isoformat(), **metadata}
            adapter |= {"parameters": header.parameters, "bytes": header.size}
        words, recordings, job = self.store.words(user), self.recordings.of(user), self.jobs.of(user)
        if adapter is None and not words and not recordings and job is None:
            raise UnknownUserError("nothing is known of this user")
        return About(user, self.adapter_of(user), adapter, words, recordings, job)

    def put_words(self, user: str, words: Sequence[str]) -> tuple[str, ...]:
        """Replace a person's words; none removes them.

        Raises:
            InputError: a word is not right, or the model cannot write it.
        """
        self._search.check(words)
        with self._changing:
            return self.store.put_words(user, words)

    def adapter_file(self, user: str) -> bytes:
        """A person's adapter as a `.pt`.

        Raises:
            UnknownUserError: there is none.
        """
        if not self.store.has(user):
            raise UnknownUserError("there is no adapter of this user")
        with TemporaryDirectory() as folder:
            path = Path(folder) / "adapter.pt"
            self.store.export(user, path)
            return path.read_bytes()

    def erase(self, user: str) -> bool:
        """Forget a person: adapter, words, recordings, activations, job; whether there was anything."""
        with self._changing:
            self.jobs.erase(user)
            found = self.store.erase(user)
        with suppress(UnknownUserError):
            self.bank.check_user(user)  # which notices it, and gives the slot to others
        return found

    def _sweep(self) -> None:
        while True:
            for folder in self.recordings.old():
                with self._changing:
                    self.recordings.remove_old(folder)
            if self.stopping.wait(SWEEP_SECONDS):
                return


def checked_user(user: str) -> str:
    """A user id of a request, if it is one that people can have.

    Raises:
        UserIdError: it is not.
    """
    check_user_id(user, "user")
    if user == PRIOR:
        raise UserIdError("user: this id is the store's own: choose another one")
    return user
