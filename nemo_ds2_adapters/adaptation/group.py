"""Some users' adapters trained all at once: adapters and utterances in, adapters out."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.adaptation.decision import Trial, Verdict, conclude, run_epoch
from nemo_ds2_adapters.adaptation.engine import Engine
from nemo_ds2_adapters.adaptation.from_prior import adapt_from_prior
from nemo_ds2_adapters.adaptation.lent_model import training_engine
from nemo_ds2_adapters.adaptation.member import Member
from nemo_ds2_adapters.adaptation.outcome import NOT_FINITE, Outcome
from nemo_ds2_adapters.adaptation.prior import VoicePrior
from nemo_ds2_adapters.adaptation.settings import LEAST_RECORDINGS, Settings
from nemo_ds2_adapters.adapters.adapter import Adapter, is_additive, is_finite, zero
from nemo_ds2_adapters.data.manifest import Utterance

logger = logging.getLogger(__name__)


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


def adapt_group(
    model: ASRModel,
    groups: Sequence[Sequence[Utterance]],
    settings: Settings,
    start: Adapter,
    cache: PrefixCache | Sequence[PrefixCache] | None = None,
    prior: VoicePrior | None = None,
) -> Iterator[tuple[int, Outcome]]:
    """Train an adapter for each of some users, each as if alone, and for as long as their own recordings ask for.

    The model is as it was when this is over; until then it must not be used.

    Args:
        model: the base, with the device and precision to train in.
        groups: each user's utterances.
        settings: of the training.
        start: what everybody's training starts from; it must know nothing of the utterances. Not used with a prior.
        cache: of activations, one for all or one per user; None: in memory, and beyond a limit in temporary files.
        prior: of this base: training starts from it and goes by its recipe; whoever is unlike everybody in its
            population is cross-validated as without one.

    Yields:
        number of the user and what came of the training, as soon as that is known.

    Raises:
        InputError: the adapter does not fit the model, or the model is no frozen DeepSpeech2; a recording cannot be
            read.
    """
    with training_engine(model, groups, prior.adapter if prior else start, cache) as (engine, positions, start):
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
        recordings = len({engine.data.recording(i) for i in utterances})
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
