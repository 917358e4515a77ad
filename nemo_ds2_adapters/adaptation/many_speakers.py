"""One adapter per speaker, in one run: each goes to the store as soon as it is finished."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from operator import attrgetter
from typing import Any

from nemo.collections.asr.models import ASRModel
from tqdm import tqdm

from nemo_ds2_adapters.activations.cache import CacheSettings, PrefixCache
from nemo_ds2_adapters.adaptation.engine import OnEpoch
from nemo_ds2_adapters.adaptation.group import adapt_group
from nemo_ds2_adapters.adaptation.plan import Plan, population
from nemo_ds2_adapters.adaptation.report import SpeakerResult
from nemo_ds2_adapters.adaptation.settings import LEAST_RECORDINGS, Settings, within
from nemo_ds2_adapters.adaptation.voice_prior.choice import Outcome
from nemo_ds2_adapters.adaptation.voice_prior.fit_prior import PriorSettings, learn_by_parts
from nemo_ds2_adapters.adaptation.voice_prior.prior import VoicePrior, weights_hash
from nemo_ds2_adapters.adapters.adapter import Adapter, with_metadata
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.checks import check_whole
from nemo_ds2_adapters.data.speakers import Speaker, check_speakers
from nemo_ds2_adapters.errors import NemoDs2Error
from nemo_ds2_adapters.store.store import AdapterStore

logger = logging.getLogger(__name__)
REACHED = ("kind", "is_expected", "wer_before", "wer_after", "epochs", "reason")  # of an outcome, and of a result
BAR = "{desc}{percentage:3.0f} %|{bar}| {n}/{total} users [{elapsed}, {remaining} left]"


def adapt_speakers(
    model: ASRModel,
    speakers: Sequence[Speaker],
    store: AdapterStore,
    settings: Settings,
    start: Adapter,
    *,
    prior: VoicePrior | None = None,
    own_prior: PriorSettings | None = None,
    key: str = "speakers",
    users_at_once: int = 16,
    cache: CacheSettings | None = None,
    keep_activations: bool = False,
    progress: bool = False,
    say: Callable[[str], object] = logger.info,
    on_epoch: OnEpoch | None = None,
) -> list[SpeakerResult]:
    """Train an adapter for every speaker, and put it into the store: one result per speaker, in the same order.

    Each is what this speaker alone gets, whoever the others are, with the given prior or by cross-validation; and is
    trained anew from the start whatever the store has: nothing is scored on what it was trained on. Or priors are made
    of the speakers themselves, by parts, so that nobody's knows them; then a result depends on all speakers. Speakers
    whose adapter in the store was trained on the same data, base, start, settings and, with priors made here, from the
    same other speakers are finished; a speaker with broken or too little data is skipped.

    Args:
        model: the base; it is as it was afterwards.
        speakers: may have problems already.
        store: where adapters go.
        settings: of the training.
        start: what everybody's training starts from; with priors made of the speakers, that of these; not used with a
            given one.
        prior: of this base; whoever is like the people in its population is not cross-validated.
        own_prior: how to make priors of the speakers where none is given; if they are too few, or those left out gain
            nothing by it, everybody is cross-validated.
        key: what to call the manifest in messages.
        users_at_once: trained together.
        cache: how activations are kept while a group is trained.
        keep_activations: in the store, for a later run; its `erase` removes them with the user.
        progress: show bars.
        say: is told in a line whether priors are made, and what they are like.
        on_epoch: is told, after each epoch, the share that those who are trained together have done, 0 to 1.

    Raises:
        InputError: a setting is wrong.
        AdapterFileError: the store cannot be written.
    """
    check_whole("model.adapter.users_at_once", users_at_once, 1)
    store.check_writable()
    people = population(speakers)
    cache = cache or CacheSettings()
    plan = Plan.of(
        fingerprint(model),
        settings,
        start,
        people,
        prior=prior,
        own_prior=own_prior,
        say=say,
        key=key,
        users_at_once=users_at_once,
        cache=cache,
        keep_activations=keep_activations,
    )
    results = finished_before(speakers, store, plan)
    pending = [speaker for speaker in speakers if speaker.user_id not in results]
    shared = None
    heard = pending
    if plan.own_prior and pending:
        shared = cache.open()  # what is computed for the priors is used once more
        heard = [*pending, *(one for one in people if one.user_id in results)]
    check_speakers(tqdm(heard, "checking recordings", unit="user", leave=False, disable=not progress), key, model)
    if plan.own_prior and pending:
        plan = plan.with_priors(
            people, partial(learn_by_parts, model, people, start, cache=shared, progress=progress), say
        )
    with tqdm(total=len(speakers), initial=len(results), bar_format=BAR, disable=not progress) as bar:
        pending.sort(key=_hashed)
        for group in plan.groups(pending, _hashed, attrgetter("seconds")):
            for result in adapt_together(model, group, store, plan, shared, on_epoch):
                results[result.user] = result
                bar.update()
    return [results[speaker.user_id] for speaker in speakers]


def finished_before(speakers: Sequence[Speaker], store: AdapterStore, plan: Plan) -> dict[str, SpeakerResult]:
    """What an earlier run with the same data, base and settings reached, by user; who is not in it is pending."""
    found = {}
    for speaker in speakers:
        if speaker.problem is None and (done := _finished(speaker, store, plan)):
            found[speaker.user_id] = done
    return found


def adapt_together(
    model: ASRModel,
    group: Sequence[Speaker],
    store: AdapterStore,
    plan: Plan,
    cache: PrefixCache | None = None,
    on_epoch: OnEpoch | None = None,
) -> Iterator[SpeakerResult]:
    """Adapt a group of speakers, and put what comes of each into the store: their results as they come.

    Args:
        model: the plan's base; it must not be used until this is over.
        group: checked, in the order of their hashes, with the same prior; who has a problem is skipped.
        store: where adapters go.
        plan: for everybody.
        cache: of activations; None: one for this group, as the plan says.
        on_epoch: see `adapt_speakers`.
    """
    ready = []
    for speaker in group:
        if speaker.problem is not None:
            yield _result(speaker, "skipped", problem=speaker.problem)
        else:
            ready.append(speaker)
    if ready:
        for speaker, outcome in _outcomes(model, ready, store, plan, cache or plan.cache.open(), on_epoch):
            yield _kept(speaker, outcome, store, plan)


def within_limits(speakers: Sequence[Speaker], section: Mapping[str, Any]) -> list[Speaker]:
    """The speakers without utterances that are too short or too long for the config's section `model.train_ds`.

    Who has too few left has a problem. InputError: a limit is no number.
    """
    found = []
    for speaker in speakers:
        left = within("model.train_ds", section, speaker.utterances)
        problem = speaker.problem
        if len(left) < min(LEAST_RECORDINGS, len(speaker.utterances)):
            problem = problem or f"{len(left)} of {len(speaker.utterances)} utterances left by min_ and max_duration"
        found.append(replace(speaker, utterances=left, problem=problem))
    return found


def _outcomes(
    model: ASRModel,
    group: Sequence[Speaker],
    store: AdapterStore,
    plan: Plan,
    shared: PrefixCache,
    on_epoch: OnEpoch | None,
) -> Iterator[tuple[Speaker, Outcome]]:
    """Of every speaker of a group; what goes wrong for one is that speaker's outcome, for all everybody's."""
    caches: list[PrefixCache] = []
    ready = []
    for speaker in group:
        try:
            caches.append(PrefixCache(store.cache_folder(speaker.user_id), 0.0) if plan.keep_activations else shared)
        except NemoDs2Error as error:
            yield speaker, Outcome(problem=str(error))
        else:
            ready.append(speaker)
    waiting = dict(enumerate(ready))
    try:
        groups, prior = [speaker.utterances for speaker in ready], plan.prior_for(group[0].user_id)
        for number, outcome in adapt_group(model, groups, plan.settings, plan.start, caches, prior, on_epoch):
            yield waiting.pop(number), outcome
    except NemoDs2Error as error:
        for speaker in waiting.values():
            yield speaker, Outcome(problem=str(error))


def _kept(speaker: Speaker, outcome: Outcome, store: AdapterStore, plan: Plan) -> SpeakerResult:
    """Put what came of a speaker's training into the store."""
    if outcome.problem is not None:
        return _result(speaker, "skipped", problem=outcome.problem)
    reached = {name: getattr(outcome, name) for name in REACHED}
    if outcome.adapter is None:
        return _result(speaker, "base kept: no adapter", **reached)
    prior = plan.prior_for(speaker.user_id)
    metadata = {
        "settings": plan.identity,
        "training": asdict(plan.settings),
        "data": speaker.data_hash(),
        "seconds_of_speech": speaker.seconds,
        "prior": weights_hash(prior.adapter) if prior else None,
        **reached,
    }
    try:
        had_one = store.has(speaker.user_id)
        store.put(speaker.user_id, with_metadata(outcome.adapter, metadata))
    except NemoDs2Error as error:
        return _result(speaker, "skipped", problem=str(error), **reached)
    status = {"base": "base kept", "prior": "prior kept", "adapted": "updated" if had_one else "trained"}[outcome.kind]
    return _result(speaker, status, **reached)


def _finished(speaker: Speaker, store: AdapterStore, plan: Plan) -> SpeakerResult | None:
    try:
        info = store.header(speaker.user_id).info if store.has(speaker.user_id) else None
    except NemoDs2Error:
        return None  # a damaged version is replaced by a new one
    if info is None or (info.fingerprint, info.metadata.get("settings")) != (plan.base, plan.identity):
        return None
    if info.metadata.get("data") != speaker.data_hash():
        return None
    reached = {name: info.metadata.get(name) for name in REACHED}
    return _result(speaker, "finished before", **reached)


def _result(speaker: Speaker, status: str, **reached: Any) -> SpeakerResult:
    return SpeakerResult(
        speaker.user_id,
        status,
        len(speaker.utterances),
        round(speaker.seconds, 3),
        findings=speaker.findings,
        **reached,
    )


def _hashed(speaker: Speaker) -> str:
    return user_hash(speaker.user_id)
