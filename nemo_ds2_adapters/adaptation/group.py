"""Some users' adapters trained all at once: adapters and utterances in, adapters out."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise

import torch
from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.activations.dataset import PrefixData
from nemo_ds2_adapters.activations.point import resume_point, why_not_exact
from nemo_ds2_adapters.adaptation.decision import Trial, Verdict, conclude, run_epoch
from nemo_ds2_adapters.adaptation.engine import Engine
from nemo_ds2_adapters.adaptation.member import Member
from nemo_ds2_adapters.adaptation.prepare import left_as_it_was
from nemo_ds2_adapters.adaptation.settings import LEAST_RECORDINGS, Settings
from nemo_ds2_adapters.adapters.adapter import Adapter, is_additive, zero
from nemo_ds2_adapters.adapters.attach import attach, undone
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.enabling import enabled_adapters
from nemo_ds2_adapters.data.dataset import UtteranceDataset
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError

IN_TRAINING = "in_training"  # name of the attached adapter that says what the trained ones are like

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What came of one user's training."""

    verdict: Verdict | None  # None where there is a problem
    adapter: Adapter | None  # to be used: trained, or the base as an adapter; None: the base, without any adapter
    problem: str | None = None  # why there is none


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
) -> Iterator[tuple[int, Outcome]]:
    """Train an adapter for each of some users, each as if alone, and for as long as their own recordings ask for.

    The model is as it was when this is over; until then it must not be used.

    Args:
        model: the base, with the device and precision to train in.
        groups: each user's utterances.
        settings: of the training.
        start: what everybody's training starts from; it must know nothing of the utterances.
        cache: of activations, one for all or one per user; None: in memory, and beyond a limit in temporary files.

    Yields:
        number of the user and what came of the training, as soon as that is known.

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
            start = attached_adapter(model, IN_TRAINING, start.metadata)
            caches = cache if isinstance(cache, Sequence) else [cache or PrefixCache()] * len(groups)
            dataset = UtteranceDataset([*chain.from_iterable(groups)], model)
            own = [one for one, group in zip(caches, groups) for _ in group]
            data = PrefixData(model, dataset, resume_point(model), own)
            data.compute()
            yield from _courses(Engine(model, data, IN_TRAINING), groups, settings, start)


def _courses(
    engine: Engine, groups: Sequence[Sequence[Utterance]], settings: Settings, start: Adapter
) -> Iterator[tuple[int, Outcome]]:
    courses = []
    ends = accumulate((len(group) for group in groups), initial=0)
    for number, (first, end) in enumerate(pairwise(ends)):
        utterances = range(first, end)
        recordings = len({engine.data.recording(i) for i in utterances})
        if recordings < LEAST_RECORDINGS:
            problem = f"{recordings} recording{'s' * (recordings != 1)}, at least {LEAST_RECORDINGS} are needed"
            yield number, Outcome(None, None, problem)
            continue
        trial = Trial.of(engine, start, utterances, settings)
        courses.append(Course(number, trial, engine.member(start, utterances, [], settings)))
    while courses:
        in_trial = [course for course in courses if course.verdict is None]
        run_epoch(engine, [c.trial for c in in_trial], [c.whole for c in courses if c.verdict is not None])
        for course in in_trial:
            if course.trial.is_over:
                course.verdict = conclude(engine, course.trial)
        for course in courses:
            if course.is_over:
                yield course.number, _outcome(course, start)
        courses = [course for course in courses if not course.is_over]


def _outcome(course: Course, start: Adapter) -> Outcome:
    verdict = course.verdict
    if verdict is not None and not verdict.epochs:
        return Outcome(verdict, zero(start) if is_additive(start) else None)
    adapter = course.whole.adapter()
    if not all(torch.isfinite(value).all() for state in adapter.weights.values() for value in state.values()):
        return Outcome(None, None, "training did not converge, weights are not finite")
    return Outcome(verdict, adapter)
