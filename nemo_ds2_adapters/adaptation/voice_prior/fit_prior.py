"""Learning a voice prior from a population: its adapter, and what became of those who were left out of it."""

from collections.abc import Mapping, Sequence
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
    adapters, tried = _left_out(model, people, start, settings, cache, progress, everybody=True)
    return measured(adapters[-1], tried, people, settings)


def learn_by_parts(
    model: ASRModel,
    speakers: Sequence[Speaker],
    start: Adapter,
    settings: PriorSettings,
    cache: PrefixCache | None = None,
    progress: bool = False,
) -> list[tuple[VoicePrior, list[Speaker]]]:
    """For each part of the speakers, a prior of the others: its adapter has not heard them, its record is of others.

    What learning one prior trains anyway, without the adapter of everybody. Takes what `learn_prior` takes.

    Returns:
        the priors, each with the speakers it is for.
    """
    people = usable(speakers)
    adapters, tried = _left_out(model, people, start, settings, cache, progress, everybody=False)
    found = []
    for k, adapter in enumerate(adapters):
        others = [person for i, person in enumerate(people) if i % settings.folds != k]
        prior = measured(adapter, [one for one in tried if one.part != k], others, settings)
        found.append((prior, people[k :: settings.folds]))
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


def _left_out(
    model: ASRModel,
    people: Sequence[Speaker],
    start: Adapter,
    settings: PriorSettings,
    cache: PrefixCache | None,
    progress: bool,
    everybody: bool,
) -> tuple[list[Adapter], list[Tried]]:
    """The adapter of everybody but one part for each part, perhaps that of everybody, and how the parts fared."""
    with training_engine(model, [person.utterances for person in people], start, cache) as (engine, positions, start):
        parts = [positions[k :: settings.folds] for k in range(settings.folds)]
        groups = [[p for p in positions if p not in part] for part in parts]
        populations = [[i for one in group for i in one] for group in [*groups, *([positions] if everybody else [])]]
        members = [engine.member(start, utterances, [], settings.population) for utterances in populations]
        for _ in tqdm(range(settings.epochs), "population", unit="epoch", leave=False, disable=not progress):
            engine.train_epoch(members)
        adapters = [with_metadata(member.adapter(), {}) for member in members]
        base = dict(enumerate(engine.score(range(len(engine.data)))))
        tried: list[Tried] = []
        for k in tqdm(range(settings.folds), "left out", unit="part", leave=False, disable=not progress):
            tried += try_people(engine, adapters[k], k, parts[k], base, settings)
    return adapters, tried
