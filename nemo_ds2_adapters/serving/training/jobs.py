"""Trainings of adapters, one at a time: each a file in the folder of its person, so that none is lost."""

import json
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Condition, RLock, Thread
from typing import Any

from nemo_ds2_adapters.errors import InputError, NemoDs2Error
from nemo_ds2_adapters.formats.atomic import write_atomically
from nemo_ds2_adapters.formats.scratch import ScratchFolder
from nemo_ds2_adapters.serving.logs import log
from nemo_ds2_adapters.serving.metrics import Metrics
from nemo_ds2_adapters.serving.recordings import Recording, Recordings
from nemo_ds2_adapters.serving.refusal import Refusal, busy
from nemo_ds2_adapters.serving.training.job import Job, State, read_job
from nemo_ds2_adapters.serving.training.worker import Task, Worker, WorkerDiedError
from nemo_ds2_adapters.store.store import AdapterStore

FILE = "job.json"
MODE = 0o600
MOST_WAITING = 100  # jobs
MOST_STARTS = 3  # of one job: the process that does it may die
LEAST_RECORDINGS = 2

logger = logging.getLogger(__name__)


class Jobs:
    """All trainings, and the thread that has them done.

    Args:
        store: where the adapters go.
        recordings: what they are made of.
        worker: does the work.
        changing: held by whoever changes what is kept about a person.
        metrics: are told how jobs end.
    """

    def __init__(
        self, store: AdapterStore, recordings: Recordings, worker: Worker, changing: RLock, metrics: Metrics
    ) -> None:
        self._store, self._recordings, self._worker = store, recordings, worker
        self._metrics = metrics
        self._changed = Condition(changing)
        self._jobs: dict[str, Job] = {}  # the last one of each person, by their id
        self._by_id: dict[str, Job] = {}  # the same
        self._queue: deque[Job] = deque()
        self._running: Job | None = None
        self._is_closed = False
        self._resume()
        self._thread = Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def start(self, user: str) -> Job:
        """Queue a person's training, unless it waits already.

        Raises:
            Refusal: one is running (409), or too many wait (503).
            InputError: there are too few recordings.
        """
        with self._changed:
            last = self._jobs.get(user)
            if last is not None and last.state == "queued":
                return last
            if last is not None and last.state == "running":
                raise Refusal(409, "job_running", "this user's adapter is being trained", job=last.id)
            _check_enough(self._recordings.of(user))
            if len(self._queue) >= MOST_WAITING:
                raise busy(f"{MOST_WAITING} trainings wait already")
            job = Job(user)
            self._save(job)
            self._forget(user)
            self._remember(job)
            self._queue.append(job)
            self._count()
            self._changed.notify_all()
            return job

    def get(self, job_id: str) -> Job:
        """A job by its id.

        Raises:
            Refusal: there is none.
        """
        if job_id not in self._by_id:
            raise Refusal(404, "unknown_job", "there is no such job, or a later one of its user has taken its place")
        return self._by_id[job_id]

    def of(self, user: str) -> Job | None:
        """A person's last job."""
        return self._jobs.get(user)

    def erase(self, user: str) -> None:
        """Forget a person's job; if it is running, what it has made so far is lost. To be called under the lock."""
        job = self._forget(user)
        if job is None:
            return
        if job is self._running:
            self._worker.kill()
        if job in self._queue:
            self._queue.remove(job)
        job.state, job.ended, job.result = "erased", time.time(), None
        self._count()

    def close(self) -> None:
        """Stop; what is not over goes on at the next start."""
        with self._changed:
            self._is_closed = True
            self._worker.kill()
            self._changed.notify_all()
        self._thread.join()

    def _resume(self) -> None:
        for path in self._store.cached(FILE):
            try:
                job = read_job(path)
            except (OSError, ValueError, TypeError, KeyError) as error:  # of another version, or damaged
                logger.warning("a training is forgotten, its file cannot be read: %s", type(error).__name__)
                continue
            self._remember(job)
            if not job.is_over:
                job.state, job.stage, job.share = "queued", "waiting", 0.0
                self._queue.append(job)
        self._queue = deque(sorted(self._queue, key=lambda job: job.created))
        self._count()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._is_closed:
                    self._worker.start()  # before it is needed: loading the model takes a while
                self._changed.wait_for(lambda: self._queue or self._is_closed)
                if self._is_closed:
                    return
                job = self._running = self._queue.popleft()
            try:
                self._train(job)
            except Exception as error:
                if not isinstance(error, NemoDs2Error):
                    logger.exception("a training has failed")
                self._fail(job, error)
            with self._changed:
                self._running = None
                self._count()

    def _train(self, job: Job) -> None:
        with self._changed:
            if job.state == "erased":
                return
            job.state, job.started, job.starts = "running", time.time(), job.starts + 1
            job.stage, job.trained_since = "preparing", None
            recordings = self._recordings.of(job.user)
            if job.starts > MOST_STARTS:
                raise Refusal(500, "worker", f"the process that trains has died {MOST_STARTS} times")
            self._save(job)
            _check_enough(recordings)  # they may have become too old
        with ScratchFolder("job") as folder:
            files = tuple((one.path, one.text, one.seconds) for one in recordings)
            try:
                result = self._worker.train(Task(job.user, files, folder), lambda message: self._note(job, message))
            except WorkerDiedError:
                self._try_again(job)
                return
            with self._changed:
                if job.state != "erased":
                    self._finish(job, result, folder, {one.number for one in recordings})

    def _note(self, job: Job, message: dict[str, Any]) -> None:
        job.trained_since = job.trained_since or time.time()
        job.stage, job.share = message["stage"], max(job.share, message["share"])  # training on everything begins anew

    def _try_again(self, job: Job) -> None:
        """Unless it was this program that has ended the process."""
        with self._changed:
            if job.state != "erased" and not self._is_closed:
                job.state, job.stage, job.share = "queued", "waiting", 0.0
                self._queue.appendleft(job)

    def _finish(self, job: Job, result: dict[str, Any], folder: Path, numbers: set[int]) -> None:
        if result["problem"] is not None:
            raise InputError(result["problem"])
        made = AdapterStore(folder)
        if made.has(job.user):
            self._store.put(job.user, made.get(job.user))
        self._recordings.trained(job.user, numbers)
        job.result = {key: value for key, value in result.items() if key not in ("user", "problem")}
        job.stage, job.share = "finished", 1.0
        self._end(job, "done")

    def _fail(self, job: Job, error: Exception) -> None:
        with self._changed:
            if job.state != "erased":
                is_ours = isinstance(error, NemoDs2Error)
                detail = str(error) if is_ours else "the training has failed; the service's log says how"
                job.problem = {"code": getattr(error, "code", "error") if is_ours else "error", "detail": detail}
                self._end(job, "failed")

    def _end(self, job: Job, state: State) -> None:
        job.state, job.ended = state, time.time()
        self._save(job)
        self._metrics.jobs.labels(state).inc()
        seconds = job.ended - (job.started or job.ended)
        log("training", state=state, seconds=round(seconds, 1), problem=(job.problem or {}).get("code"))

    def _remember(self, job: Job) -> None:
        self._jobs[job.user] = self._by_id[job.id] = job

    def _forget(self, user: str) -> Job | None:
        job = self._jobs.pop(user, None)
        if job is not None:
            del self._by_id[job.id]
        return job

    def _save(self, job: Job) -> None:
        write_atomically(self._store.cache_folder(job.user) / FILE, json.dumps(asdict(job)).encode(), MODE)

    def _count(self) -> None:
        self._metrics.waiting_jobs.set(len(self._queue) + (self._running is not None))


def _check_enough(recordings: Sequence[Recording]) -> None:
    if len(recordings) < LEAST_RECORDINGS:
        raise InputError(f"{len(recordings)} recordings of this user, at least {LEAST_RECORDINGS} are needed")
