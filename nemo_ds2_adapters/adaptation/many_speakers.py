"""One adapter per speaker, in one run: each goes to the store as soon as it is finished."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from nemo.collections.asr.models import ASRModel
from tqdm import tqdm

from nemo_ds2_adapters.activations.cache import CacheSettings, PrefixCache
from nemo_ds2_adapters.adaptation.group import adapt_group
from nemo_ds2_adapters.adaptation.outcome import Outcome
from nemo_ds2_adapters.adaptation.prior import VoicePrior, check_fits
from nemo_ds2_adapters.adaptation.report import SpeakerResult
from nemo_ds2_adapters.adaptation.settings import LEAST_RECORDINGS, Settings, check_whole, within
from nemo_ds2_adapters.adapters.adapter import Adapter, with_metadata
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.data.speakers import Speaker, check_speakers
from nemo_ds2_adapters.errors import NemoDs2Error
from nemo_ds2_adapters.store.store import AdapterStore

BAR = "{desc}{percentage:3.0f} %|{bar}| {n}/{total} users [{elapsed}, {remaining} left]"


def adapt_speakers(
    model: ASRModel,
    speakers: Sequence[Speaker],
    store: AdapterStore,
    settings: Settings,
    start: Adapter,
    *,
    prior: VoicePrior | None = None,
    key: str = "speakers",
    users_at_once: int = 16,
    cache: CacheSettings | None = None,
    keep_activations: bool = False,
    progress: bool = False,
) -> list[SpeakerResult]:
    """Train an adapter for every speaker, and put it into the store.

    Each is what cross-validation and training on this speaker alone give, whoever the others are, and is trained anew
    from the start whatever the store has: nothing is scored on what it was trained on. Speakers whose adapter in the
    store was trained on the same data, base, start and settings are finished; a speaker with broken or too little
    data is skipped.

    Args:
        model: the base; it is as it was afterwards.
        speakers: may have problems already.
        store: where adapters go.
        settings: of the training.
        start: what everybody's training starts from; not used with a prior.
        prior: of this base; whoever is like the people in its population is not cross-validated.
        key: what to call the manifest in messages.
        users_at_once: trained together.
        cache: how activations are kept while a group is trained.
        keep_activations: in the store, for a later run; its `erase` removes them with the user.
        progress: show bars.

    Returns:
        one result per speaker, in the same order.

    Raises:
        InputError: a setting is wrong.
        AdapterFileError: the store cannot be written.
    """
    check_whole("model.adapter.users_at_once", users_at_once, 1)
    store.check_writable()
    base = fingerprint(model)  # hashed once
    if prior is not None:
        check_fits(prior, base)
        start = prior.adapter
    settings_hash = _hash([asdict(settings), start.config, _weights_hash(start)])
    results: dict[str, SpeakerResult] = {}
    for speaker in speakers:
        if speaker.problem is None and (done := _finished(speaker, settings_hash, base, store)):
            results[speaker.user_id] = done
    pending = [speaker for speaker in speakers if speaker.user_id not in results]
    check_speakers(tqdm(pending, "checking recordings", unit="user", leave=False, disable=not progress), key, model)
    for speaker in pending:
        if speaker.problem is not None:
            results[speaker.user_id] = _result(speaker, "skipped", problem=speaker.problem)
    pending = [speaker for speaker in pending if speaker.problem is None]
    with tqdm(total=len(speakers), initial=len(results), bar_format=BAR, disable=not progress) as bar:
        for first in range(0, len(pending), users_at_once):
            group = pending[first : first + users_at_once]
            for speaker, outcome in _outcomes(model, group, settings, start, prior, store, cache, keep_activations):
                result = _kept(speaker, outcome, settings, settings_hash, store)
                results[speaker.user_id] = result
                bar.update(len(results) - bar.n)
    return [results[speaker.user_id] for speaker in speakers]


def within_limits(speakers: Sequence[Speaker], section: Mapping[str, Any]) -> list[Speaker]:
    """The speakers without utterances that are too short or too long; who has too few left has a problem.

    Args:
        speakers: of a manifest.
        section: the config's section `model.train_ds`.

    Raises:
        InputError: a limit is no number.
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
    settings: Settings,
    start: Adapter,
    prior: VoicePrior | None,
    store: AdapterStore,
    cache: CacheSettings | None,
    keep_activations: bool,
) -> Iterator[tuple[Speaker, Outcome]]:
    """Of every speaker of a group; what goes wrong for one is that speaker's outcome, for all everybody's."""
    caches: list[PrefixCache] = []
    ready = []
    shared = (cache or CacheSettings()).open()
    for speaker in group:
        try:
            caches.append(PrefixCache(store.cache_folder(speaker.user_id), 0.0) if keep_activations else shared)
        except NemoDs2Error as error:
            yield speaker, Outcome(problem=str(error))
        else:
            ready.append(speaker)
    waiting = dict(enumerate(ready))
    try:
        groups = [speaker.utterances for speaker in ready]
        for number, outcome in adapt_group(model, groups, settings, start, caches, prior):
            yield waiting.pop(number), outcome
    except NemoDs2Error as error:
        for speaker in waiting.values():
            yield speaker, Outcome(problem=str(error))


def _kept(
    speaker: Speaker, outcome: Outcome, settings: Settings, settings_hash: str, store: AdapterStore
) -> SpeakerResult:
    """Put what came of a speaker's training into the store."""
    if outcome.problem is not None:
        return _result(speaker, "skipped", problem=outcome.problem)
    reached = {name: getattr(outcome, name) for name in ("wer_before", "wer_after", "epochs", "reason")}
    if outcome.adapter is None:
        return _result(speaker, "base kept: no adapter", **reached)
    metadata = {
        "settings": settings_hash,
        "training": asdict(settings),
        "data": speaker.data_hash(),
        "seconds_of_speech": speaker.seconds,
        "kind": outcome.kind,
        **reached,
    }
    try:
        had_one = store.has(speaker.user_id)
        store.put(speaker.user_id, with_metadata(outcome.adapter, metadata))
    except NemoDs2Error as error:
        return _result(speaker, "skipped", problem=str(error), **reached)
    status = {"base": "base kept", "prior": "prior kept", "adapted": "updated" if had_one else "trained"}[outcome.kind]
    return _result(speaker, status, **reached)


def _finished(speaker: Speaker, settings_hash: str, base: str, store: AdapterStore) -> SpeakerResult | None:
    """What an earlier run with the same data, base and settings reached; None if there was none."""
    try:
        info = store.header(speaker.user_id).info if store.has(speaker.user_id) else None
    except NemoDs2Error:
        return None  # a damaged version is replaced by a new one
    if info is None or (info.fingerprint, info.metadata.get("settings")) != (base, settings_hash):
        return None
    if info.metadata.get("data") != speaker.data_hash():
        return None
    reached = {name: info.metadata.get(name) for name in ("wer_before", "wer_after", "epochs", "reason")}
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


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _weights_hash(adapter: Adapter) -> str:
    digest = hashlib.sha256()
    for point, state in adapter.weights.items():
        for name, value in state.items():
            digest.update(f"{point} {name} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.contiguous().reshape(-1).numpy().tobytes())
    return digest.hexdigest()
