"""Learning a voice prior from a population: its adapter, and what became of those who were left out of it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from nemo.collections.asr.models import ASRModel
from tqdm import tqdm

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.adaptation.group import training_engine
from nemo_ds2_adapters.adaptation.settings import PriorSettings
from nemo_ds2_adapters.adaptation.start import new_adapter
from nemo_ds2_adapters.adaptation.voice_prior.left_out import Tried, measured, try_people
from nemo_ds2_adapters.adaptation.voice_prior.prior import VoicePrior
from nemo_ds2_adapters.adapters.adapter import Adapter, is_additive, with_metadata
from nemo_ds2_adapters.data.speakers import Speaker, check_speakers, read_speakers
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.reading import FilePath

LEAST_SPEAKERS = 6
NAME = "voice_prior"  # of the population's adapter
DEFAULT_CONFIG = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [64], "layers": "all"}
LEAST_UTTERANCES = 3  # of a speaker
# Others whom a prior made in passing must know: of 857 wrong words the speech of 5, 15 and 40 others left 799, 716 and
# 615 after adaptation, and before it that of 5 made things worse.
LEAST_OTHERS = 15

Learnt = tuple[Adapter, list[Tried]]  # the adapter of those who are not in a part, and how the part fared with it
Learn = Callable[[Sequence[Speaker], Sequence[int]], list[Learnt]]  # of people, for each of these parts


def fit_prior(
    model: ASRModel,
    manifest: FilePath,
    speaker_key: str = "speaker",
    config: Mapping[str, Any] | None = None,
    settings: PriorSettings | None = None,
) -> VoicePrior:
    """Learn a prior from a manifest, as ds2-adapters fit-prior does it; `save_prior` writes it.

    Args:
        model: the base, which none of the speakers was trained on; it is as it was afterwards.
        manifest: NeMo manifest of the population's recordings, with transcripts.
        speaker_key: its field that names the speaker.
        config: of the adapter, `_target_` among it; None for the shipped one.
        settings: of the training.

    Raises:
        InputError: the manifest is wrong, there are too few speakers, or the adapter does not fit the model.
    """
    settings = settings or PriorSettings()
    speakers, _ = read_speakers(str(manifest), "manifest", speaker_key)
    check_speakers(speakers, "manifest", model)
    start = new_adapter(model, NAME, config or DEFAULT_CONFIG, settings.seed)
    return learn_prior(model, speakers, start, settings)


def learn_prior(
    model: ASRModel,
    speakers: Sequence[Speaker],
    start: Adapter,
    settings: PriorSettings | None = None,
    cache: PrefixCache | None = None,
    progress: bool = False,
    learn: Learn | None = None,
) -> VoicePrior:
    """Learn a prior.

    The speakers are left out in parts: their gain is that of people whom neither base nor prior has met, and the
    recipe that the record tells of was chosen by the other parts. The population's adapter is that of everybody.

    Args:
        model: the base, which none of the speakers was trained on; it is as it was afterwards.
        speakers: those with problems, and with fewer than three utterances, are passed over.
        start: an adapter that nobody has trained.
        settings: of the training.
        cache: of activations; None: in memory, and beyond a limit in temporary files.
        progress: show a bar.
        learn: does it for the parts, elsewhere and at the same time perhaps; None: `learn_parts` here.

    Raises:
        InputError: too few speakers, or the adapter does not fit the model.
    """
    settings = settings or PriorSettings()
    people = usable(speakers)
    if len(people) < max(LEAST_SPEAKERS, settings.folds):
        raise InputError(
            f"{len(people)} speakers with {LEAST_UTTERANCES} utterances or more are too few for a voice prior, "
            f"at least {max(LEAST_SPEAKERS, settings.folds)} are needed"
        )
    learn = learn or partial(learn_parts, model, start, settings, cache=cache, progress=progress)
    *parts, (everybodys, _) = learn(people, range(settings.folds + 1))
    return measured(everybodys, [one for _, tried in parts for one in tried], people, settings)


def learn_by_parts(
    model: ASRModel,
    speakers: Sequence[Speaker],
    start: Adapter,
    settings: PriorSettings,
    cache: PrefixCache | None = None,
    progress: bool = False,
    learn: Learn | None = None,
) -> list[tuple[VoicePrior, list[Speaker]]]:
    """For each part of the speakers, a prior of the others: its adapter has not heard them, its record is of others.

    What learning one prior trains anyway, without the adapter of everybody. Takes what `learn_prior` takes.

    Returns:
        the priors, each with the speakers it is for.
    """
    people = usable(speakers)
    learn = learn or partial(learn_parts, model, start, settings, cache=cache, progress=progress)
    learnt = learn(people, range(settings.folds))
    found = []
    for k, (adapter, _) in enumerate(learnt):
        tried = [one for part, (_, of_part) in enumerate(learnt) for one in of_part if part != k]
        others = [person for i, person in enumerate(people) if i % settings.folds != k]
        found.append((measured(adapter, tried, others, settings), people[k :: settings.folds]))
    return found


def why_no_prior(speakers: Sequence[Speaker], start: Adapter, settings: PriorSettings) -> str | None:
    """Why `learn_by_parts` is of no use for these speakers; None if it is."""
    if not is_additive(start):
        return "this kind of adapter takes the place of what the base computes"
    people = len(usable(speakers))
    if people - -(-people // settings.folds) < LEAST_OTHERS:
        return (
            f"{people} speakers with {LEAST_UTTERANCES} utterances or more, of whom each prior would know "
            f"{people - -(-people // settings.folds)}; fewer than {LEAST_OTHERS} others help too little"
        )
    return None


def usable(speakers: Sequence[Speaker]) -> list[Speaker]:
    """Those of whom enough is there to be adapted and to be scored."""
    return [one for one in speakers if one.problem is None and len(one.utterances) >= LEAST_UTTERANCES]


def learn_parts(
    model: ASRModel,
    start: Adapter,
    settings: PriorSettings,
    people: Sequence[Speaker],
    parts: Sequence[int],
    *,
    cache: PrefixCache | None = None,
    progress: bool = False,
) -> list[Learnt]:
    """For each part of the people, the adapter of the others, and how those in the part fared with it.

    Of all who are at the same place modulo `settings.folds` there is one part; the part after the last is nobody, its
    adapter everybody's. What is learnt for a part does not depend on which others are asked for, up to rounding.
    """
    with training_engine(model, [person.utterances for person in people], start, cache) as (engine, positions, start):
        of_part = {k: positions[k :: settings.folds] if k < settings.folds else [] for k in parts}
        populations = [[i for one in positions if one not in left_out for i in one] for left_out in of_part.values()]
        members = [engine.member(start, utterances, [], settings.population) for utterances in populations]
        for _ in tqdm(range(settings.epochs), "population", unit="epoch", leave=False, disable=not progress):
            engine.train_epoch(members)
        adapters = [with_metadata(member.adapter(), {}) for member in members]
        base = dict(enumerate(engine.score(range(len(engine.data)))))
        bar = tqdm(of_part.items(), "left out", unit="part", leave=False, disable=not progress)
        return [
            (adapter, try_people(engine, adapter, k, left_out, base, settings) if left_out else [])
            for adapter, (k, left_out) in zip(adapters, bar)
        ]
