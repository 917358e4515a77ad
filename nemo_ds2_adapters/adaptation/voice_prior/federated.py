"""A prior from adapters alone: where speech may not leave its owners, the mean of their adapters is the population's.

In rounds, each of which trains everybody's from the last mean where their speech is, that is federated averaging
(McMahan et al. 2017), or with steps of another size and momentum Reptile (Nichol et al. 2018) and FedAvgM.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.adaptation.group import training_engine
from nemo_ds2_adapters.adaptation.settings import PriorSettings, Settings
from nemo_ds2_adapters.adaptation.voice_prior.fit_prior import NAME, usable
from nemo_ds2_adapters.adaptation.voice_prior.left_out import Tried, measured, try_people
from nemo_ds2_adapters.adaptation.voice_prior.prior import Step, VoicePrior
from nemo_ds2_adapters.adapters.adapter import Adapter, combination, mean, with_metadata
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.data.speakers import Speaker
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.store.store import PRIOR, AdapterStore

# Where nobody was there to be left out: what the record of 60 synthetic people called for, docs/prior.md.
RECIPE = (Step(3.0, 2, 0.5), Step(8.0, 4, 0.5), Step(30.0, 8, 0.5))
LEAST_ADAPTERS = 2

logger = logging.getLogger(__name__)


def refresh_prior(
    model: ASRModel,
    store: AdapterStore,
    speakers: Sequence[Speaker] = (),
    settings: PriorSettings | None = None,
    cache: PrefixCache | None = None,
    say: Callable[[str], object] = logger.info,
) -> VoicePrior:
    """Make the mean of everybody's own adapter the next version of a store's prior, which `read_prior` finds there.

    Those who keep the base or a population's adapter, and adapters of other bases, are passed over. Without anybody's
    speech the prior has no record: whoever uses it is cross-validated, from the better one of base and prior.

    Args:
        model: the base; it is as it was afterwards.
        store: of the users.
        speakers: people with whose speech recipe and record are made; those with problems, with fewer than three
            utterances, or with an adapter in the store are passed over.
        settings: of their training.
        cache: of activations; None: in memory, and beyond a limit in temporary files.
        say: is told in lines who was passed over, and which version it is.

    Raises:
        InputError: there are too few adapters or speakers, or adapters of different architectures.
        AdapterFileError: one is damaged.
    """
    settings, base = settings or PriorSettings(), fingerprint(model)
    adapters = [store.get(found.user_id) for found in store.entries() if found.fingerprint == base]
    adapters = [one for one in adapters if one.metadata.get("kind", "adapted") == "adapted"]
    if len(adapters) < LEAST_ADAPTERS:
        raise InputError(f"{store!r}: has {len(adapters)} people's own adapters for this base, a prior needs more")
    seconds = sum(float(one.metadata.get("seconds_of_speech", 0.0)) for one in adapters)
    adapter = with_metadata(replace(mean(adapters), name=NAME), {})
    learning = settings.person_lr, settings.person_batch_size
    prior = VoicePrior(adapter, *learning, RECIPE, (), {}, len(adapters), seconds)
    if known := [speaker.user_id for speaker in speakers if store.has(speaker.user_id)]:
        say(f"left out, their adapters are in the prior: {', '.join(known)}")
    if speakers:
        others = usable([speaker for speaker in speakers if speaker.user_id not in known])
        prior = _with_record(model, prior, others, settings, cache)
    version = store.put(PRIOR, prior.as_adapter())
    say(f"version {version.number} of the prior in {store!r}")
    return prior


def _with_record(
    model: ASRModel, prior: VoicePrior, people: Sequence[Speaker], settings: PriorSettings, cache: PrefixCache | None
) -> VoicePrior:
    """The prior, its adapter as it is, with recipe and record of people who are not in it."""
    if len(people) < settings.folds:
        raise InputError(f"{len(people)} speakers with enough utterances, a record needs at least {settings.folds}")
    groups = [person.utterances for person in people]
    with training_engine(model, groups, prior.adapter, cache) as (engine, positions, population):
        base = dict(enumerate(engine.score(range(len(engine.data)))))
        tried: list[Tried] = []
        for k in range(settings.folds):
            tried += try_people(engine, population, k, positions[k :: settings.folds], base, settings)
    found = measured(prior.adapter, tried, people, settings)
    return replace(found, speakers=prior.speakers, seconds=prior.seconds)


def in_rounds(
    start: Adapter,
    train: Callable[[Adapter], Sequence[Adapter]],
    rounds: int,
    step: float = 1.0,
    momentum: float = 0.0,
) -> Adapter:
    """The population's adapter after some rounds.

    Args:
        start: what the first round starts from.
        train: gives the adapters that a round's people have trained from an adapter, each where their speech is; it
            may ask others in every round.
        rounds: number of them.
        step: of the way from a round's start to the mean of what was trained from it.
        momentum: of the last round's step that is gone once more.
    """
    before = now = start
    for _ in range(rounds):
        trained = mean(train(now))
        # now + step * (trained - now) + momentum * (now - before)
        shares = [1 - step + momentum, step, -momentum]
        before, now = now, combination([now, trained, before], shares)
    return now


def train_each(
    model: ASRModel,
    speakers: Sequence[Speaker],
    start: Adapter,
    settings: Settings,
    cache: PrefixCache | None = None,
) -> list[Adapter]:
    """Everybody's adapter trained from a start on their own speech: what `in_rounds` asks for, where the speech is.

    Nothing is decided: what is kept for a person is another question.

    Args:
        model: the base; it is as it was afterwards.
        speakers: people.
        start: for this base.
        settings: of the training, for all `max_epochs`.
        cache: of activations; one and the same spares later rounds the frozen part.
    """
    groups = [speaker.utterances for speaker in speakers]
    with training_engine(model, groups, start, cache) as (engine, positions, start):
        members = [engine.member(start, one, [], settings) for one in positions]
        for _ in range(settings.max_epochs):
            engine.train_epoch(members)
        return [member.adapter() for member in members]
