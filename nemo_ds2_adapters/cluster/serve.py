"""Recognition by replicas on many machines: Ray Serve starts them, and routes everybody to a replica of their own."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import ray
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
from prometheus_client import Metric
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import RequestRouterConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import ReplicaID
from starlette.concurrency import run_in_threadpool

from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.cluster.connecting import connected
from nemo_ds2_adapters.cluster.serve_replica import Replica
from nemo_ds2_adapters.cluster.serve_router import PIN
from nemo_ds2_adapters.cluster.settings import ClusterSettings
from nemo_ds2_adapters.decoding.incremental import Partial
from nemo_ds2_adapters.errors import InputError, NemoDs2Error
from nemo_ds2_adapters.serving.base import Kind
from nemo_ds2_adapters.serving.recognition import Recognised
from nemo_ds2_adapters.serving.refusal import busy
from nemo_ds2_adapters.serving.settings import ServiceSettings
from nemo_ds2_adapters.serving.talks import Mode, Talk

ROUTER = "nemo_ds2_adapters.cluster.serve_router.UserRouter"  # by which path Ray finds it in every process
EAGER = {"RAY_worker_niceness": "0"}  # 15 by default: everything else, trainings nearly too, would come first
FALLBACKS = 1  # replicas that are tried when somebody's own has as many requests as it takes
HEALTH_SECONDS = 2.0  # between looks whether a replica still runs
EVERYWHERE_SECONDS = 10.0  # in which each replica answers what all are asked
STOP_SECONDS = 30.0  # that running requests have to end

logger = logging.getLogger(__name__)


class ClusterRecognition:
    """Recognition by replicas, which are started, and stopped by `close`.

    A recording whose replica dies is sent to another one, once.

    Args:
        settings: of the service; the same paths must lead to the same files on every machine.
        replicas: how many, each with a core.
        address: of a running cluster, or "auto" for this machine's; None: one of this process's own.

    Raises:
        InputError: there is no such cluster, it has no room, or the replicas do not start.
    """

    def __init__(self, settings: ServiceSettings, replicas: int, address: str | None) -> None:
        paths = {name: getattr(settings, name) for name in ("model", "store", "prior", "lm", "prompts")}
        settings = replace(settings, **{name: path and path.absolute() for name, path in paths.items()})
        self._connection = ExitStack()
        self._connection.enter_context(connected(ClusterSettings(address, replicas)))
        quiet = {"enable_access_log": False, "log_level": "WARNING"}
        serve.start(proxy_location="Disabled", logging_config=quiet)
        self._name = application_name(settings.store)
        deployment = serve.deployment(
            name="replica",
            num_replicas=replicas,
            ray_actor_options={"num_cpus": 1, "runtime_env": {"env_vars": EAGER}},
            max_ongoing_requests=settings.queue_size,
            max_queued_requests=settings.queue_size,
            health_check_period_s=HEALTH_SECONDS,
            graceful_shutdown_wait_loop_s=HEALTH_SECONDS / 2,
            graceful_shutdown_timeout_s=STOP_SECONDS,
            request_router_config=RequestRouterConfig(
                request_router_class=ROUTER,  # type: ignore[arg-type]
                request_router_kwargs={"num_fallback_replicas": FALLBACKS},
            ),
            logging_config=quiet,
        )(Replica)
        try:
            self._handle: DeploymentHandle[Any] = serve.run(
                deployment.bind(settings), name=self._name, route_prefix=None
            )
        except RuntimeError as error:
            self.close()
            raise InputError(
                f"the replicas do not start; base, store, prior and language model must have the same paths on every "
                f"machine ({str(error).strip().splitlines()[-1]})"
            ) from error

    async def transcribe(
        self, file: BinaryIO, user: str | None, words: Sequence[str] | None, timestamps: bool
    ) -> Recognised:
        """See `Recognition`."""
        data, key = await run_in_threadpool(file.read), _key(user)
        arguments = ("transcribe", key, data, user, words, timestamps)
        with _refusing():
            try:
                return await _ask(self._handle, *arguments)
            except RayActorError:  # another one takes its place
                return await _ask(self._handle, *arguments)

    async def open_talk(self, user: str | None, kind: Kind, sample_rate: int) -> "ClusterTalk":
        """See `Recognition`."""
        with _refusing():
            replica, number, mode = await _ask(self._handle, "open_talk", _key(user), user, kind, sample_rate)
        return ClusterTalk(self._handle, replica, number, mode)

    def close_talk(self, talk: Talk) -> None:
        """See `Recognition`."""
        talk.close()

    def forget(self, user: str) -> None:
        """See `Recognition`."""
        self._everywhere("forget", user)

    def metrics(self) -> Iterable[Metric]:
        """See `Recognition`; with the label `replica`."""
        families: dict[str, Metric] = {}
        for replica, some in self._everywhere("metrics").items():
            for one in some:
                family = families.setdefault(one.name, Metric(one.name, one.documentation, one.type))
                labelled = (sample._replace(labels={**sample.labels, "replica": replica}) for sample in one.samples)
                family.samples.extend(labelled)
        return families.values()

    def close(self) -> None:
        """See `Recognition`."""
        serve.delete(self._name)
        self._connection.close()

    def _everywhere(self, method: str, *arguments: Any) -> dict[str, Any]:
        """What the replicas answer, by their ids. One that dies meanwhile is left out, with what it had in memory."""
        actors = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True)]
        replicas = [ReplicaID.from_full_id_str(name) for name in actors if ReplicaID.is_full_id_str(name)]
        keys = [PIN + one.unique_id for one in replicas if one.deployment_id.app_name == self._name]
        handles = [self._handle.options(method_name=method, session_id=key) for key in keys]
        answers = {}
        for response in [handle.remote(*arguments) for handle in handles]:
            try:
                replica, answer = response.result(timeout_s=EVERYWHERE_SECONDS)
            except (RayActorError, TimeoutError) as error:
                logger.warning("a replica does not answer: %s", type(error).__name__)
            else:
                answers[replica] = answer  # one that is starting has another answer in its place
        return answers


class ClusterTalk:
    """A talk in a replica. What it is fed goes there with the next question."""

    def __init__(self, handle: DeploymentHandle[Any], replica: str, number: int, mode: Mode) -> None:
        self.mode = mode
        self._handle, self._key, self._place = handle, PIN + replica, (replica, number)
        self._samples: list[np.ndarray] = []

    def feed(self, samples: np.ndarray) -> None:
        """See `Talk`."""
        self._samples.append(samples)

    async def partial(self) -> Partial | None:
        """See `Talk`."""
        return await self._hear(is_end=False)

    async def finish(self) -> Hypothesis:
        """See `Talk`."""
        return await self._hear(is_end=True)

    def close(self) -> None:
        """See `Talk`."""
        self._handle.options(method_name="close_talk", session_id=self._key).remote(*self._place)

    async def _hear(self, is_end: bool) -> Any:
        samples = np.concatenate([np.zeros(0, np.int16), *self._samples])
        self._samples = []
        with _refusing():
            try:
                return await _ask(self._handle, "hear", self._key, *self._place, samples, is_end)
            except BackPressureError:
                if is_end:
                    raise
                self._samples = [samples]  # the next time is soon enough
                return None


@contextmanager
def _refusing() -> Iterator[None]:
    """What Ray raises, as clients see it."""
    try:
        yield
    except RayActorError:
        raise busy("the replica has died: begin anew") from None
    except BackPressureError:
        raise busy("every replica has as many recordings as it takes") from None
    except DeploymentUnavailableError:
        raise busy("no replica runs") from None


async def _ask(handle: DeploymentHandle[Any], method: str, key: str, *arguments: Any) -> Any:
    """A replica's answer: of the one that the key is hashed to, or that it names; of any, if it is empty."""
    answer = await handle.options(method_name=method, session_id=key).remote(*arguments)
    if isinstance(answer, NemoDs2Error):
        raise answer
    return answer


def application_name(store: Path) -> str:
    """What Ray calls the service of a store: started again, it takes the place of what is left of it."""
    return f"ds2_adapters-{hashlib.sha256(str(store.absolute()).encode()).hexdigest()[:8]}"


def _key(user: str | None) -> str:
    """By what somebody's replica is found; Ray may log it, so it does not say who they are."""
    return "" if user is None else user_hash(user)
