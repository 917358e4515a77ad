"""Some users' adapters trained all at once: adapters and utterances in, adapters out."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise

from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.activations.dataset import PrefixData
from nemo_ds2_adapters.activations.point import resume_point, why_not_exact
from nemo_ds2_adapters.adaptation.decision import Trial, Verdict, conclude, run_epoch
from nemo_ds2_adapters.adaptation.engine import Engine, OnEpoch
from nemo_ds2_adapters.adaptation.member import Member
from nemo_ds2_adapters.adaptation.prepare import left_as_it_was
from nemo_ds2_adapters.adaptation.settings import Settings, person_settings
from nemo_ds2_adapters.adaptation.voice_prior.choice import NOT_FINITE, WHAT, Outcome, choose
from nemo_ds2_adapters.adaptation.voice_prior.prior import Step, VoicePrior
from nemo_ds2_adapters.adapters.adapter import Adapter, is_additive, is_finite, towards, zero
from nemo_ds2_adapters.adapters.attach import attach
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.detach import undone
from nemo_ds2_adapters.adapters.enabling import enabled_adapters
from nemo_ds2_adapters.data.dataset import UtteranceDataset
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.data.speakers import LEAST_RECORDINGS
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.evaluation.errors import Score

logger = logging.getLogger(__name__)


IN_TRAINING = "in_training"  # name of the attached adapter that says what the trained ones are like


@dataclass
class Course:
    """A user's way: without each fold in turn, and if that helped, on everything."""

    number: int
    trial: Trial
    whole: Member
    verdict: Verdict | None = None  # once the trial is over

    @property
    def is_over(self) -> bool:
        """Whether the adapter is finished."""
        return self.verdict is not None and self.whole.epochs == self.verdict.epochs


@contextmanager
def training_engine(
    model: ASRModel,
    groups: Sequence[Sequence[Utterance]],
    start: Adapter,
    cache: PrefixCache | Sequence[PrefixCache] | None = None,
    on_epoch: OnEpoch | None = None,
) -> Iterator[tuple[Engine, list[range], Adapter]]:
    """In this block, adapters like `start` can be trained on the groups' utterances; the model must not be used.

    Args:
        model: the base, with the device and precision to train in; it is as it was afterwards.
        groups: utterances.
        start: an adapter for this base.
        cache: of activations, one for all or one per group; None: in memory, and beyond a limit in temporary files.
        on_epoch: see `Engine`.

    Yields:
        the engine, the positions of each group's utterances in its data, and the start in the model's precision.

    Raises:
        InputError: the adapter does not fit the model, or the model is no frozen DeepSpeech2; a recording cannot be
            read.
    """
    with left_as_it_was(model), undone(model):
        attach(model, start, as_name=IN_TRAINING)
        with enabled_adapters(model, IN_TRAINING):
            model.spec_augmentation = None
            model.freeze()
            if reason := why_not_exact(model):
                raise InputError(f"adapters cannot be trained together: {reason}")
            caches = cache if isinstance(cache, Sequence) else [cache or PrefixCache()] * len(groups)
            dataset = UtteranceDataset([*chain.from_iterable(groups)], model)
            own = [one for one, group in zip(caches, groups) for _ in group]
            data = PrefixData(model, dataset, resume_point(model), own)
            data.compute()
            ends = accumulate((len(group) for group in groups), initial=0)
            positions = [range(first, end) for first, end in pairwise(ends)]
            yield (
                Engine(model, data, IN_TRAINING, on_epoch),
                positions,
                attached_adapter(model, IN_TRAINING, start.metadata),
            )


def adapt_group(
    model: ASRModel,
    groups: Sequence[Sequence[Utterance]],
    settings: Settings,
    start: Adapter,
    cache: PrefixCache | Sequence[PrefixCache] | None = None,
    prior: VoicePrior | None = None,
    on_epoch: OnEpoch | None = None,
) -> Iterator[tuple[int, Outcome]]:
    """Train an adapter for each of some users, each as if alone, and for as long as their own recordings ask for.

    The model is as it was when this is over; until then it must not be used.

    Args:
        model: the base, with the device and precision to train in.
        groups: each user's utterances.
        settings: of the training.
        start: what everybody's training starts from; it must know nothing of the utterances. Not used with a prior.
        cache: of activations, one for all or one per user; None: in memory, and beyond a limit in temporary files.
        prior: of this base: training starts from it and goes by its recipe; whom its record promises nothing is
            cross-validated as without one.
        on_epoch: see `Engine`.

    Yields:
        number of the user and what came of the training, as soon as that is known.

    Raises:
        InputError: the adapter does not fit the model, or the model is no frozen DeepSpeech2; a recording cannot be
            read.
    """
    beginning = prior.adapter if prior else start
    with training_engine(model, groups, beginning, cache, on_epoch) as (engine, positions, start):
        starts = dict.fromkeys(range(len(groups)), start)
        if prior is not None:
            outcomes, starts = adapt_from_prior(engine, positions, start, prior, settings.seed)
            yield from outcomes.items()
        yield from _cross_validated(engine, {n: positions[n] for n in starts}, settings, starts)


def _cross_validated(
    engine: Engine, positions: Mapping[int, Sequence[int]], settings: Settings, starts: Mapping[int, Adapter]
) -> Iterator[tuple[int, Outcome]]:
    """What each user's own recordings say, by number of the user."""
    courses = []
    for number, utterances in positions.items():
        recordings = _recordings(engine, utterances)
        if recordings < LEAST_RECORDINGS:
            problem = f"{recordings} recording{'s' * (recordings != 1)}, at least {LEAST_RECORDINGS} are needed"
            yield number, Outcome(problem=problem)
            continue
        trial = Trial.of(engine, starts[number], utterances, settings)
        courses.append(Course(number, trial, engine.member(starts[number], utterances, [], settings)))
    while courses:
        in_trial = [course for course in courses if course.verdict is None]
        run_epoch(engine, [c.trial for c in in_trial], [c.whole for c in courses if c.verdict is not None])
        for course in in_trial:
            if course.trial.is_over:
                course.verdict = conclude(engine, course.trial)
        for course in courses:
            if course.is_over:
                yield course.number, _outcome(course.verdict, course.whole, starts[course.number])
        courses = [course for course in courses if not course.is_over]


def _recordings(engine: Engine, utterances: Sequence[int]) -> int:
    """Of which some utterances are parts."""
    return len({engine.data.recording(i) for i in utterances})


def _outcome(verdict: Verdict | None, whole: Member, start: Adapter) -> Outcome:
    assert verdict is not None  # the course is over
    rates = (verdict.wer_before, verdict.wer_after, False, verdict.epochs)
    if not verdict.epochs:
        reason = "their own recordings do not show that an adapter helps"
        return Outcome(zero(start) if is_additive(start) else None, "base", reason, *rates)
    adapter = whole.adapter()
    if not is_finite(adapter):
        return Outcome(problem=NOT_FINITE)
    return Outcome(adapter, "adapted", "recordings left out of training in turn show that it helps", *rates)


def adapt_from_prior(
    engine: Engine, people: Sequence[Sequence[int]], population: Adapter, prior: VoicePrior, seed: int
) -> tuple[dict[int, Outcome], dict[int, Adapter]]:
    """What is best for each person by what became of people like them.

    Whom the record promises nothing better than the base, their own recordings are asked, as without a prior, except a
    single one, which nobody can ask.

    Args:
        engine: has their utterances.
        people: positions of each one's utterances.
        population: the prior's adapter, in the model's precision.
        prior: with its recipe and record.
        seed: of the order of utterances.

    Returns:
        by number, what came of each person; and for those whose own recordings are to decide, what their training is
        to start from: the better one of base and population's adapter.
    """
    found: dict[int, Outcome] = {}
    undecided: dict[int, Adapter] = {}
    members: dict[int, tuple[Member, Step]] = {}
    for number, positions in enumerate(people):
        seconds = sum(engine.data.durations(positions))
        step = prior.step(seconds)
        base = sum(engine.score(positions), Score())
        own = sum(engine.score(positions, population), Score())
        choice = choose(prior, step, seconds, base, own)
        if choice.kind == "base" and _recordings(engine, positions) >= LEAST_RECORDINGS:
            undecided[number] = population if own.word_errors <= base.word_errors else zero(population)
            continue
        if choice.kind == "adapted":
            settings = person_settings(prior.lr, prior.batch_size, step.epochs, seed)
            members[number] = engine.member(population, positions, [], settings), step
        before = base.wer or 0.0
        after = before * (1 - choice.gain)
        epochs = step.epochs if choice.kind == "adapted" else 0
        kept = population if choice.kind == "prior" else zero(population)
        found[number] = Outcome(kept, choice.kind, choice.reason, before, after, True, epochs)
    _train(engine, [(member, step.epochs) for member, step in members.values()])
    for number, (member, step) in members.items():
        trained = towards(population, member.adapter(), step.share)
        found[number] = replace(found[number], adapter=trained) if is_finite(trained) else Outcome(problem=NOT_FINITE)
    return found, undecided


def adapt_one(
    engines: Sequence[Engine], population: Adapter, prior: VoicePrior, seed: int
) -> tuple[Outcome | None, Adapter]:
    """What is best for the person whose utterances an engine has, and its adapter, if there is one.

    By the prior's record; with a second engine, which has validation data, by these. None if the person's own data are
    to decide: training is then to start from the adapter.
    """
    outcomes, undecided = adapt_from_prior(engines[0], [range(len(engines[0].data))], population, prior, seed)
    if undecided:
        return None, undecided[0]
    outcome = outcomes[0]
    if outcome.adapter is None:
        return outcome, population
    if len(engines) == 1:
        return outcome, outcome.adapter
    everything = range(len(engines[1].data))
    kinds = {"base": zero(population), "prior": population, outcome.kind: outcome.adapter}
    rates = {kind: sum(engines[1].score(everything, one), Score()).wer or 0.0 for kind, one in kinds.items()}
    best = min(rates, key=lambda kind: rates[kind])
    reason = f"fewest errors on the validation data: {WHAT[best]}"
    epochs = outcome.epochs if best == "adapted" else 0
    found = replace(outcome, reason=reason, wer_before=rates["base"], wer_after=rates[best], epochs=epochs)
    return found, kinds[best]


def _train(engine: Engine, members: Sequence[tuple[Member, int]]) -> None:
    """Each for its number of epochs."""
    for before, epochs in pairwise(sorted({0, *(epochs for _, epochs in members)})):
        for _ in range(epochs - before):
            engine.train_epoch([member for member, wanted in members if wanted >= epochs])
