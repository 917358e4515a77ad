"""Learning a voice prior from a population: its adapter, and what became of those who were left out of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from nemo.collections.asr.models import ASRModel
from tqdm import tqdm

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.adaptation.engine import Engine
from nemo_ds2_adapters.adaptation.lent_model import training_engine
from nemo_ds2_adapters.adaptation.member import Member
from nemo_ds2_adapters.adaptation.prior import Experience, Step, VoicePrior, person_settings
from nemo_ds2_adapters.adaptation.settings import Settings, check_number, check_seed, check_whole
from nemo_ds2_adapters.adaptation.start import new_adapter
from nemo_ds2_adapters.adapters.adapter import Adapter, is_additive, towards, with_metadata
from nemo_ds2_adapters.data.speakers import Speaker, check_speakers, read_speakers
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.evaluation.errors import Score
from nemo_ds2_adapters.formats.reading import FilePath

AMOUNTS = (1, 3, 10)  # utterances of a person that are tried, beside all that are not needed for scoring
TEST_EVERY = 3  # utterances of a person, one is for scoring
LEAST_SPEAKERS = 6
NAME = "voice_prior"  # of the population's adapter
DEFAULT_CONFIG = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [64], "layers": "all"}
LEAST_UTTERANCES = 3  # of a speaker
# Others whom a prior made in passing must know: of 857 wrong words the speech of 5, 15 and 40 others left 799, 716 and
# 615 after adaptation, and before it that of 5 made things worse.
LEAST_OTHERS = 15


@dataclass(frozen=True)
class PriorSettings:
    """How a population's adapter is trained, and how those left out are adapted from it (docs/defaults.md).

    Raises:
        InputError: a value is not what it must be.
    """

    epochs: int = 10  # over everybody's speech
    lr: float = 0.002  # of the same, falling as a cosine
    batch_size: int = 8  # utterances, of the same
    folds: int = 3  # parts of the speakers that take turns in being left out
    person_lr: float = 0.0005  # of a person's training, constant
    person_batch_size: int = 4  # utterances
    person_epochs: tuple[int, ...] = (1, 2, 4, 8)  # that are compared
    shares: tuple[float, ...] = (0.5, 1.0)  # of the way to a person's own adapter, that are compared
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "person_batch_size"):
            check_whole(f"prior.{name}", getattr(self, name), 1)
        check_whole("prior.folds", self.folds, 2)
        for name in ("lr", "person_lr"):
            check_number(f"prior.{name}", getattr(self, name))
        check_seed(self.seed)

    @property
    def population(self) -> Settings:
        """Of the training on everybody's speech."""
        schedule = {"name": "CosineAnnealing", "warmup_ratio": 0.1, "min_lr": 1e-5}
        optim = {"name": "adamw", "lr": self.lr, "betas": [0.9, 0.98], "weight_decay": 0.0, "sched": schedule}
        return Settings(optim, self.batch_size, self.epochs, seed=self.seed)

    @property
    def person(self) -> Settings:
        """Of one person's training."""
        return person_settings(self.person_lr, self.person_batch_size, max(self.person_epochs), self.seed)


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
    return _prior(adapters[-1], tried, people, settings)


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
        prior = _prior(adapter, [one for one in tried if one.part != k], others, settings)
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
) -> tuple[list[Adapter], list["_Tried"]]:
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
        tried: list[_Tried] = []
        for k in tqdm(range(settings.folds), "left out", unit="part", leave=False, disable=not progress):
            tried += _try(engine, adapters[k], k, parts[k], base, settings)
    return adapters, tried


def _prior(
    adapter: Adapter, tried: Sequence["_Tried"], people: Sequence[Speaker], settings: PriorSettings
) -> VoicePrior:
    recipe, record = [], []
    for number, amount in enumerate(sorted({one.amount for one in tried})):
        group = [one for one in tried if one.amount == amount]
        recipe.append(_step(group, settings))
        for one in group:
            # By the recipe of the other parts: what was chosen by a person's own gain would promise too much.
            others = [other for other in group if other.part != one.part]
            record.append(one.experience(number, _step(others or group, settings)))
    return VoicePrior(
        adapter=adapter,
        lr=settings.person_lr,
        batch_size=settings.person_batch_size,
        recipe=tuple(recipe),
        record=tuple(record),
        spread=_spread(tried),
        speakers=len(people),
        seconds=sum(person.seconds for person in people),
    )


@dataclass(frozen=True)
class _Tried:
    """One left-out person with so many utterances: scores by what was done."""

    part: int
    amount: int  # of `AMOUNTS`, or one more: all
    seconds: float
    own_base: Score  # of what the person was adapted on
    by_base: Score  # of the rest
    own_prior: Score  # with the population's adapter
    by_prior: Score
    scores: dict[tuple[int, float], Score]  # of the rest, by epochs and share
    distances: dict[str, float]  # mean squares, of the adapter trained longest

    def errors(self, epochs: int, share: float) -> int:
        return (self.scores[epochs, share] if epochs else self.by_prior).word_errors

    def experience(self, number: int, step: Step) -> Experience:
        own, other = self.own_base, self.by_base
        return Experience(
            number,
            self.seconds,
            own.words,
            own.word_errors,
            self.own_prior.word_errors,
            other.words,
            other.word_errors,
            self.by_prior.word_errors,
            self.errors(step.epochs, step.share),
        )


def _try(
    engine: Engine,
    population: Adapter,
    number: int,
    part: Sequence[range],
    base: Mapping[int, Score],
    settings: PriorSettings,
) -> list[_Tried]:
    """Adapt the people of a part from the population's adapter, with more and less of their speech."""
    members: list[Member] = []
    splits: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
    for one in part:
        test = tuple(one[TEST_EVERY - 1 :: TEST_EVERY])
        train = tuple(i for i in one if i not in test)
        for amount, count in enumerate((*AMOUNTS, len(train))):
            if count < len(train) or amount == len(AMOUNTS):
                splits.append((amount, train[:count], test))
                members.append(engine.member(population, train[:count], test, settings.person))
    everything = [i for one in part for i in one]
    own = dict(zip(everything, engine.score(everything, population)))
    scores: list[dict[tuple[int, float], Score]] = [{} for _ in members]
    for before, epochs in pairwise((0, *settings.person_epochs)):
        for _ in range(epochs - before):
            engine.train_epoch(members)
        for share in settings.shares:
            moved = [towards(population, member.adapter(), share) for member in members]
            scored = [engine.member(adapter, m.train, m.held_out, m.settings) for adapter, m in zip(moved, members)]
            for found, all_scores in zip(scores, engine.scores(scored)):
                found[epochs, share] = sum(all_scores, Score())

    def total(known: Mapping[int, Score], indices: Sequence[int]) -> Score:
        return sum((known[i] for i in indices), Score())

    return [
        _Tried(
            number,
            amount,
            sum(engine.data.durations(train)),
            total(base, train),
            total(base, test),
            total(own, train),
            total(own, test),
            scores[i],
            _mean_squares(members[i].adapter(), population),
        )
        for i, (amount, train, test) in enumerate(splits)
    ]


def _step(tried: Sequence[_Tried], settings: PriorSettings) -> Step:
    """What made the fewest errors; of equals, the shortest way from the population's adapter."""
    ways = [(0, 1.0), *((epochs, share) for epochs in settings.person_epochs for share in settings.shares)]
    epochs, share = min(ways, key=lambda way: (sum(one.errors(*way) for one in tried), way[0] * way[1]))
    return Step(sum(one.seconds for one in tried) / len(tried), epochs, share)


def _mean_squares(adapter: Adapter, population: Adapter) -> dict[str, float]:
    return {
        f"{point}.{key}": float((value - population.weights[point][key]).square().mean())
        for point, state in adapter.weights.items()
        for key, value in state.items()
        if value.is_floating_point()
    }


def _spread(tried: Sequence[_Tried]) -> dict[str, float]:
    longest = max(one.amount for one in tried)
    people = [one.distances for one in tried if one.amount == longest]
    means = {key: torch.tensor([one[key] for one in people], dtype=torch.float64).mean() for key in people[0]}
    return {key: float(mean.sqrt()) for key, mean in means.items()}
