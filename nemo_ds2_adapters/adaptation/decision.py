"""Whether an adapter is kept, and after how many epochs: the person's own training utterances tell."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Self

from torch import Tensor
from tqdm import tqdm

from nemo_ds2_adapters.adaptation.engine import Engine, TokenScore
from nemo_ds2_adapters.adaptation.member import Member
from nemo_ds2_adapters.adaptation.settings import Settings
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.data.speakers import LEAST_RECORDINGS
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.evaluation.errors import Score

LEAST_WORDS = 2  # fewer wrong words out of fold, or an adapter has not shown that it helps
LEAST_DEVIATIONS = 1.65  # of the differences between the two; without any effect one in twenty is as large
# With errors in fewer utterances no adapter gets so far, for a sum of k numbers is at most sqrt(k) of its deviations.
LEAST_WITH_ERRORS = math.ceil(LEAST_DEVIATIONS**2)


@dataclass(frozen=True)
class Verdict:
    """What cross-validation says. Sums over all of a person's recordings, each scored out of fold."""

    epochs: int  # to train for; 0: the base is better, or no worse than chance would have it
    base: Score
    adapted: Score | None  # after `epochs`, None for 0

    @property
    def wer_before(self) -> float:
        """The base's word error rate, as a fraction."""
        return _rate(self.base)

    @property
    def wer_after(self) -> float:
        """That of what is kept."""
        return _rate(self.adapted or self.base)


@dataclass
class Trial:
    """One person's adapter, trained once without each fold.

    Args:
        members: one per fold, trained without its utterances and scored on them.
        base: by position, each utterance that is scored, with what the adapter is compared with.
    """

    members: Sequence[Member]
    base: Mapping[int, Score]
    curve: list[TokenScore] = field(default_factory=list)  # out of fold, summed, after each epoch
    _best: list[list[Tensor]] = field(default_factory=list)  # the members' weights after the best epoch

    @classmethod
    def of(
        cls,
        engine: Engine,
        start: Adapter,
        utterances: Sequence[int],
        settings: Settings,
        compared_with: Adapter | None = None,
    ) -> Self:
        """The trial of a person.

        Args:
            engine: has the utterances.
            start: what training starts from; it must know nothing of the utterances.
            utterances: the person's, positions in the engine's data; at least two recordings.
            settings: of the training.
            compared_with: what the adapter must be better than, None for the base.
        """
        copies = copies_of(utterances, [engine.data.recording(i) for i in utterances])
        scored = list(copies)
        members = []
        for held_out in split(scored, settings.folds):
            left_out = {copy for i in held_out for copy in copies[i]}
            train = [i for i in utterances if i not in left_out]
            members.append(engine.member(start, train, held_out, settings))
        return cls(members, dict(zip(scored, engine.score(scored, compared_with))))

    @property
    def best_epoch(self) -> int:
        """The one with the fewest errors, of these with the lowest loss; 0 for the first."""
        return min(range(len(self.curve)), key=lambda epoch: self.curve[epoch])

    @property
    def may_pass(self) -> bool:
        """Whether `decide` could accept an adapter without errors."""
        return sum(score.word_errors > 0 for score in self.base.values()) >= LEAST_WITH_ERRORS

    @property
    def is_over(self) -> bool:
        """Whether the errors no longer become fewer, all epochs are done, or none need be."""
        settings, epochs = self.members[0].settings, len(self.curve)
        if epochs == settings.max_epochs or not self.may_pass:
            return True
        return bool(epochs) and settings.patience is not None and epochs - 1 - self.best_epoch >= settings.patience

    def note(self, scores: Sequence[Sequence[TokenScore]]) -> None:
        """Take down an epoch: the scores of each member's held-out utterances."""
        every = list(chain(*scores))
        self.curve.append(TokenScore(sum(score.errors for score in every), sum(score.loss for score in every)))
        if self.best_epoch == len(self.curve) - 1:
            self._best = [member.saved() for member in self.members]

    def restore_best(self) -> None:
        """Give every member the weights of the best epoch."""
        for member, weights in zip(self.members, self._best):
            member.restore(weights)


def copies_of(utterances: Sequence[int], recordings: Sequence[str]) -> dict[int, list[int]]:
    """By the first utterance of each recording, all utterances of it: they are left out together, and scored once.

    Args:
        utterances: positions.
        recordings: what tells the recording of each from others.
    """
    of_recording: dict[str, list[int]] = {}
    for utterance, recording in zip(utterances, recordings, strict=True):
        of_recording.setdefault(recording, []).append(utterance)
    return {group[0]: group for group in of_recording.values()}


def split(utterances: Sequence[int], folds: int) -> list[Sequence[int]]:
    """Parts of the utterances that take turns in being held out.

    With fewer utterances than two per part, each is left out once.
    """
    count = len(utterances) if len(utterances) < 2 * folds else folds
    return [utterances[k::count] for k in range(count)]


def run_epoch(engine: Engine, trials: Sequence[Trial], others: Sequence[Member] = ()) -> None:
    """Train the members of trials for one more epoch, and take down what they have reached.

    Args:
        engine: the training.
        trials: none of them over.
        others: are trained along with them.
    """
    members = list(chain(*(trial.members for trial in trials)))
    engine.train_epoch([*members, *others])
    scores = iter(engine.token_scores(members))
    for trial in trials:
        trial.note([next(scores) for _ in trial.members])


def conclude(engine: Engine, trial: Trial) -> Verdict:
    """What a trial that is over says of its best epoch."""
    if not trial.curve:
        return Verdict(0, sum(trial.base.values(), Score()), None)
    trial.restore_best()
    scored = zip(trial.members, engine.scores(trial.members))
    adapted = {i: score for member, scores in scored for i, score in zip(member.held_out, scores)}
    return decide(trial.best_epoch + 1, trial.base.values(), [adapted[i] for i in trial.base])


def cross_validate(
    engine: Engine, start: Adapter, settings: Settings, compared_with: Adapter | None = None, progress: bool = False
) -> Verdict:
    """For how many epochs to train on all of an engine's utterances, which are one person's.

    Raises InputError: there is one recording only.
    """
    utterances = range(len(engine.data))
    if len({engine.data.recording(i) for i in utterances}) < LEAST_RECORDINGS:
        raise InputError(
            "model.train_ds: one utterance cannot tell whether an adapter helps; give more, or model.adapter.folds=0"
        )
    trial = Trial.of(engine, start, utterances, settings, compared_with)
    description = f"{len(trial.members)}-fold cross-validation"
    with tqdm(total=settings.max_epochs, desc=description, unit="epoch", leave=False, disable=not progress) as bar:
        while not trial.is_over:
            run_epoch(engine, [trial])
            bar.update()
    return conclude(engine, trial)


def decide(epochs: int, base: Collection[Score], adapted: Collection[Score]) -> Verdict:
    """Accept the adapter if it makes fewer errors than the base, by more than chance would have it.

    That is by `LEAST_WORDS`, and both in words and in characters by `LEAST_DEVIATIONS` times the standard deviation
    of the sum of differences between the two, if they were as often for as against the adapter. With less, in half a
    minute of speech, harm on other sentences is as likely as gain (docs/defaults.md).

    Args:
        epochs: that the adapter was trained for.
        base: of each utterance without the adapter.
        adapted: of the same utterances, out of fold.
    """
    by_words = [b.word_errors - a.word_errors for b, a in zip(base, adapted)]
    by_characters = [b.character_errors - a.character_errors for b, a in zip(base, adapted)]
    if sum(by_words) >= LEAST_WORDS and _is_beyond_chance(by_words) and _is_beyond_chance(by_characters):
        return Verdict(epochs, sum(base, Score()), sum(adapted, Score()))
    return Verdict(0, sum(base, Score()), None)


def _is_beyond_chance(differences: Sequence[int]) -> bool:
    return sum(differences) > 0 and sum(differences) >= LEAST_DEVIATIONS * sum(d * d for d in differences) ** 0.5


def _rate(score: Score) -> float:
    return score.word_errors / max(score.words, 1)
