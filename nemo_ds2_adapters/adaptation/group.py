"""The training of some speakers' adapters, all at once."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.activations.dataset import PrefixDataset
from nemo_ds2_adapters.adaptation.cross_validation import Trial, Verdict, conclude, fold_members, run_epoch
from nemo_ds2_adapters.adaptation.speakers.job import TEMPLATE, Job
from nemo_ds2_adapters.adaptation.together.loop import Together, score
from nemo_ds2_adapters.adaptation.together.member import Member, Settings
from nemo_ds2_adapters.adaptation.together.parts import installed
from nemo_ds2_adapters.adapters.enabling import enabled_adapters


@dataclass
class Course:
    """A speaker's way: without each fold in turn, and if that helped, on everything."""

    job: Job
    trial: Trial
    whole: Member
    verdict: Verdict | None = None  # once the trial is over

    @property
    def is_over(self) -> bool:
        """Whether the adapter is finished."""
        return self.verdict is not None and self.whole.epochs == self.verdict.epochs


def train_speakers(
    jobs: Sequence[Job], data: PrefixDataset, model: ASRModel, settings: Settings, folds: int
) -> Iterator[tuple[Job, Verdict, Member]]:
    """Train every speaker's adapter, each for as long as the speaker's own recordings ask for.

    Args:
        jobs: of speakers with two utterances or more.
        data: their utterances.
        model: frozen, with the template enabled.
        settings: of the training.
        folds: of cross-validation.

    Yields:
        each job as soon as it is finished, with what cross-validation said and the adapter trained on everything for
        as many epochs.
    """
    together = Together(model, data, TEMPLATE)
    courses = [_course(job, data, model, settings, folds) for job in jobs]
    while courses:
        in_trial = [course for course in courses if course.verdict is None]
        run_epoch(together, [c.trial for c in in_trial], [c.whole for c in courses if c.verdict is not None])
        for course in in_trial:
            if course.trial.is_over:
                course.verdict = conclude(together, course.trial)
        for course in courses:
            if course.verdict is not None and course.is_over:
                yield course.job, course.verdict, course.whole
        courses = [course for course in courses if not course.is_over]


def _course(job: Job, data: PrefixDataset, model: ASRModel, settings: Settings, folds: int) -> Course:
    with installed(model, TEMPLATE, job.start) if job.continued else enabled_adapters(model, None):
        base = dict(zip(job.utterances, score(model, data, job.utterances)))
    members = fold_members(job.start, data, job.utterances, folds, settings)
    whole = Member(copy.deepcopy(job.start), job.utterances, data.durations(job.utterances), [], settings)
    return Course(job, Trial(members, base, data.words(job.utterances)), whole)
