"""Whether an adapter helps a person, and after how many epochs: the person's own training utterances tell."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from torch import Tensor

from nemo_ds2_adapters.training.prefix import PrefixDataset
from nemo_ds2_adapters.training.together import CTCScore, Member, Settings, Together
from nemo_ds2_adapters.training.together.parts import Parts

LEAST_WORDS = 2  # fewer wrong words out of fold, or an adapter has not shown that it helps
LEAST_DEVIATIONS = 2.0  # standard deviations of a count of so many wrong words (Poisson)


@dataclass(frozen=True)
class Verdict:
    """What cross-validation says. Sums over all of a person's training utterances, each scored out of fold."""

    epochs: int  # to train for; 0: the base is better, or no worse than chance would have it
    words: int  # of the references
    base: CTCScore
    adapted: CTCScore | None  # after `epochs`, None for 0

    @property
    def wer_before(self) -> float:
        """The base's word error rate, as a fraction."""
        return self.base.word_errors / max(self.words, 1)

    @property
    def wer_after(self) -> float:
        """That of what is kept."""
        return (self.adapted or self.base).word_errors / max(self.words, 1)


@dataclass
class Trial:
    """One person's adapter, trained once without each fold.

    Args:
        members: see `fold_members`.
        base: each utterance without the adapter.
        words: of all references.
    """

    members: Sequence[Member]
    base: Sequence[CTCScore]
    words: int
    losses: list[float] = field(default_factory=list)  # out of fold, summed, after each epoch
    _best: list[list[Tensor]] = field(default_factory=list)  # the members' weights after the best epoch

    @property
    def best_epoch(self) -> int:
        """The one with the lowest loss, 0 for the first. Losses tell epochs apart more finely than words do."""
        return min(range(len(self.losses)), key=lambda epoch: self.losses[epoch])

    @property
    def is_over(self) -> bool:
        """Whether the losses have turned upwards, or all epochs are done."""
        settings, epochs = self.members[0].settings, len(self.losses)
        if epochs == settings.max_epochs:
            return True
        return bool(epochs) and settings.patience is not None and epochs - 1 - self.best_epoch >= settings.patience

    def note(self, losses: Sequence[Sequence[float]]) -> None:
        """Take down an epoch: the losses of each member's held-out utterances."""
        self.losses.append(sum(chain(*losses)))
        if self.best_epoch == len(self.losses) - 1:
            self._best = [member.saved() for member in self.members]

    def restore_best(self) -> None:
        """Give every member the weights of the best epoch."""
        for member, weights in zip(self.members, self._best):
            member.restore(weights)


def fold_members(
    parts: Parts, data: PrefixDataset, utterances: Sequence[int], folds: int, settings: Settings
) -> list[Member]:
    """One adapter per fold, trained without the fold's utterances and scored on them.

    Args:
        parts: the adapter as training starts; it is copied.
        data: activations.
        utterances: a person's, indices in the data.
        folds: number of parts that take turns; with fewer utterances than two per fold, each is left out once.
        settings: of the training.
    """
    count = len(utterances) if len(utterances) < 2 * folds else folds
    members = []
    for k in range(count):
        held_out = list(utterances[k::count])
        train = [i for i in utterances if i not in set(held_out)]
        members.append(Member(copy.deepcopy(parts), train, data.durations(train), held_out, settings))
    return members


def run_epoch(together: Together, trials: Sequence[Trial], others: Sequence[Member] = ()) -> None:
    """Train the members of trials for one more epoch, and take down their losses.

    Args:
        together: the training.
        trials: none of them over.
        others: are trained along with them.
    """
    members = list(chain(*(trial.members for trial in trials)))
    together.train_epoch([*members, *others])
    losses = iter(together.losses(members))
    for trial in trials:
        trial.note([next(losses) for _ in trial.members])


def conclude(together: Together, trial: Trial) -> Verdict:
    """What a trial that is over says of its best epoch."""
    trial.restore_best()
    adapted = list(chain(*together.scores(trial.members)))
    return decide(trial.best_epoch + 1, trial.base, adapted, trial.words)


def decide(epochs: int, base: Sequence[CTCScore], adapted: Sequence[CTCScore], words: int) -> Verdict:
    """Accept the adapter if the base's wrong words become fewer by more than chance would have it.

    That is by `LEAST_WORDS` and by `LEAST_DEVIATIONS` times the square root of their number. With less, in half a
    minute of speech, harm on other sentences is as likely as gain (docs/defaults.md).

    Args:
        epochs: that the adapter was trained for.
        base: of each utterance without the adapter.
        adapted: of each utterance, out of fold.
        words: of all references.
    """
    before, after = total(base), total(adapted)
    if before.word_errors - after.word_errors >= max(LEAST_WORDS, LEAST_DEVIATIONS * before.word_errors**0.5):
        return Verdict(epochs, words, before, after)
    return Verdict(0, words, before, None)


def total(scores: Sequence[CTCScore]) -> CTCScore:
    """The sum over utterances."""
    return CTCScore(
        sum(score.loss for score in scores),
        sum(score.word_errors for score in scores),
        sum(score.character_errors for score in scores),
    )
