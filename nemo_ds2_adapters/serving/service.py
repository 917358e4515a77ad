"""What the service is, without HTTP: recognition, what is kept about people, and trainings."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event, RLock, Thread
from typing import Any

import numpy as np

from nemo_ds2_adapters.adapters.users import check_user_id
from nemo_ds2_adapters.errors import UnknownUserError, UserIdError
from nemo_ds2_adapters.formats.file import adapter_bytes
from nemo_ds2_adapters.serving.auth import RateLimit, Tokens
from nemo_ds2_adapters.serving.base import Kind, ServedBase
from nemo_ds2_adapters.serving.metrics import Metrics
from nemo_ds2_adapters.serving.prompts import SHIPPED, read_prompts
from nemo_ds2_adapters.serving.recognition import Recognition
from nemo_ds2_adapters.serving.recordings import Recording, Recordings
from nemo_ds2_adapters.serving.training.job import Job
from nemo_ds2_adapters.serving.training.jobs import Jobs
from nemo_ds2_adapters.serving.training.worker import Worker, WorkerSettings
from nemo_ds2_adapters.store.store import PRIOR

SWEEP_SECONDS = 3600.0  # between looks for recordings that are older than they are kept


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
        base: what is recognised with, and where people's adapters lie.
        recognition: by that base; it is closed with the service.
        tokens: of those who may call.

    Raises:
        InputError: the prompts cannot be read.
    """

    def __init__(self, base: ServedBase, recognition: Recognition, tokens: Tokens) -> None:
        self.base, self.recognition, self.tokens = base, recognition, tokens
        self.settings, self.store = base.settings, base.store
        self.rate, self.metrics = RateLimit(self.settings.requests_per_minute), Metrics()
        self.prompts = read_prompts(self.settings.prompts or SHIPPED, base.model)
        self._changing = RLock()  # held by who changes what is kept about a person
        self.recordings = Recordings(self.store, base.model, self.settings.keep_recordings)
        threads, niceness = self.settings.training_threads, self.settings.training_niceness
        worker = Worker(WorkerSettings(self.settings.model, self.settings.prior, threads, niceness))
        self.jobs = Jobs(self.store, self.recordings, worker, self._changing, self.metrics)
        self.stopping = Event()
        self._sweeper = Thread(target=self._sweep, name="sweep", daemon=True)
        self._sweeper.start()

    def close(self) -> None:
        """Recognise what waits, and stop; trainings go on at the next start."""
        self.stopping.set()
        self.recognition.close()
        self.jobs.close()
        self._sweeper.join()

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
        return About(user, self.base.adapter_of(user), adapter, words, recordings, job)

    def put_words(self, user: str, words: Sequence[str]) -> tuple[str, ...]:
        """Replace a person's words; none removes them.

        Raises:
            InputError: a word is not right, or the model cannot write it.
        """
        self.base.search.check(words)
        with self._changing:
            return self.store.put_words(user, words)

    def adapter_file(self, user: str) -> bytes:
        """A person's adapter as a `.pt`.

        Raises:
            UnknownUserError: there is none.
        """
        if not self.store.has(user):
            raise UnknownUserError("there is no adapter of this user")
        return adapter_bytes([self.store.look_into(user)[1]])

    def erase(self, user: str) -> bool:
        """Forget a person: adapter, words, recordings, activations, job; whether there was anything."""
        with self._changing:
            self.jobs.erase(user)
            found = self.store.erase(user)
        self.recognition.forget(user)
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
