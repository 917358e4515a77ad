"""An adapter for every speaker of manifests of any length, by the workers of a Ray cluster."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import ray
from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.adaptation.plan import MOST_SPEAKERS, Plan
from nemo_ds2_adapters.adaptation.report import SpeakerResult
from nemo_ds2_adapters.adaptation.settings import PriorSettings
from nemo_ds2_adapters.adaptation.voice_prior.fit_prior import Learn, Learnt, learn_by_parts
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.cluster.connecting import connected
from nemo_ds2_adapters.cluster.pool import GivenUp, Pool
from nemo_ds2_adapters.cluster.progress import Progress
from nemo_ds2_adapters.cluster.results import ResultFile
from nemo_ds2_adapters.cluster.settings import ClusterSettings
from nemo_ds2_adapters.cluster.shards import Shards, User
from nemo_ds2_adapters.cluster.worker import Base, Source, Worker
from nemo_ds2_adapters.data.manifest import parse_fields
from nemo_ds2_adapters.data.speakers import Speaker, check_speakers
from nemo_ds2_adapters.errors import ClusterError

Say = Callable[[str], object]

logger = logging.getLogger(__name__)


@contextmanager
def workers_of(settings: ClusterSettings, base: Base, say: Say = logger.info) -> Iterator[Pool]:
    """In this block the workers of a cluster, which hold a base, can be given tasks.

    Raises InputError: there is no such cluster, or no room for them.
    """
    with connected(settings) as count:
        say(f"{count} workers, {settings.cores} cores each")
        make: Any = Worker  # Ray's decorator made another class of it
        yield Pool(lambda: make.options(num_cpus=settings.cores).remote(base), count, say)


def learning(pool: Pool, start: Adapter, settings: PriorSettings) -> Learn:
    """What `learn_prior` and `learn_by_parts` ask to learn the parts of a population: each is a worker's task."""

    def learn(people: Sequence[Speaker], parts: Sequence[int]) -> list[Learnt]:
        found: dict[int, Learnt] = {}
        shared = ray.put(list(people)), ray.put(start), settings
        for (part,), learnt in pool.run("learn", [[part] for part in parts], *shared):
            if isinstance(learnt, GivenUp):
                raise ClusterError(f"a voice prior cannot be learnt: {learnt.reason}")
            (found[part],) = learnt
        return [found[part] for part in parts]

    return learn


def adapt_manifests(
    pool: Pool,
    model: ASRModel,
    shards: Shards,
    source: Source,
    make_plan: Callable[[Sequence[Speaker]], Plan],
    path: Path,
    say: Say = logger.info,
) -> Progress:
    """Train an adapter for every speaker of manifests; workers put it into the store.

    What each gets is what `adapt_speakers` gives: bit for bit where the same people share a group, on processors that
    compute alike, else up to rounding. Finished speakers are passed over, so a run that was killed goes on.

    Args:
        pool: workers with the base.
        model: the base too.
        shards: of the manifests.
        source: the same for the workers, and the store.
        make_plan: gives the plan of everybody, which may be to make priors of these speakers.
        path: of a Parquet file with everybody's result.
        say: is told in lines how far things are.

    Returns:
        counts of what came of everybody.

    Raises:
        InputError: a setting is wrong.
        ClusterError: the workers end again and again.
    """
    first = sorted(islice(shards.users(), MOST_SPEAKERS), key=lambda user: user.lines[0][:2])
    people = source.speakers(first)
    plan = make_plan(people)
    if plan.own_prior is not None:
        check_speakers(people, plan.key, model)
        start, by_workers = plan.start, learning(pool, plan.start, plan.own_prior)
        plan = plan.with_priors(
            people, lambda settings: learn_by_parts(model, people, start, settings, learn=by_workers), say
        )
    groups = plan.groups(shards.users(), attrgetter("hashed"), attrgetter("seconds"))
    progress = Progress(shards.seconds, say)
    with ResultFile(path) as file:
        for group, adapted in pool.run("adapt", groups, source, ray.put(plan)):
            seconds, spent = sum(user.seconds for user in group), 0.0
            if isinstance(adapted, GivenUp):
                results = [_given_up(user, source.speaker_key, adapted.reason) for user in group]
            else:
                results, spent = adapted.results, adapted.core_seconds
            file.add(results)
            progress.add(results, seconds, spent)
    say(progress.line())
    return progress


def _given_up(user: User, speaker_key: str, reason: str) -> SpeakerResult:
    user_id = parse_fields(user.lines[0].text)[speaker_key]
    return SpeakerResult(user_id, "skipped", len(user.lines), round(user.seconds, 3), problem=reason)
