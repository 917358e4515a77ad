"""Never worse than the base: a person's own recordings tell whether an adapter helps, and after how many epochs."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from nemo.collections.asr.models import ASRModel
from torch import nn

from nemo_ds2_adapters.adapters import enabled_adapters
from nemo_ds2_adapters.adapters.blocks import adapter_parts
from nemo_ds2_adapters.modules import MLPHeadAdapter
from nemo_ds2_adapters.training.prefix import PrefixDataset
from nemo_ds2_adapters.training.together import EpochScore, Member, Settings
from nemo_ds2_adapters.training.together.stack import Parts

LEAST_WORDS = 2  # fewer wrong words out of fold, or an adapter has not shown that it helps
LEAST_DEVIATIONS = 2.0  # standard deviations of a count of so many wrong words (Poisson)


@dataclass(frozen=True)
class Verdict:
    """What cross-validation says. Sums over all of a person's training utterances, each scored out of fold."""

    epochs: int  # to train for; 0: the base is better, or no worse than chance would have it
    words: int  # of the references
    base: EpochScore
    adapted: EpochScore | None  # after `epochs`, None for 0

    @property
    def wer_before(self) -> float:
        """The base's word error rate, as a fraction."""
        return self.base.word_errors / max(self.words, 1)

    @property
    def wer_after(self) -> float:
        """That of what is kept."""
        return (self.adapted or self.base).word_errors / max(self.words, 1)


class Guard:
    """What an adapter is compared with, and made into again if it does not help.

    Args:
        model: with the adapter attached, as it is before training.
        name: of the adapter.
        continued: compare it with itself as it is now, not with the base.
    """

    def __init__(self, model: ASRModel, name: str, continued: bool) -> None:
        self.name = name
        self._model = model
        self._continued = continued
        self._parts = [part for _, part in adapter_parts(model, name)]
        self._start = copy.deepcopy([part.state_dict() for part in self._parts])

    def can_restore(self) -> bool:
        """Whether `restore` is possible: a head that replaces the base's output is never the base."""
        return self._continued or not any(isinstance(p, MLPHeadAdapter) and p.mode == "replace" for p in self._parts)

    @contextmanager
    def compared_with(self) -> Iterator[None]:
        """In this block the model is what the adapter is compared with."""
        with enabled_adapters(self._model, self.name if self._continued else None):
            yield

    @torch.no_grad()
    def restore(self) -> None:
        """Make the adapter what it was compared with: for the base, its last layer becomes zero."""
        for part, state in zip(self._parts, self._start):
            if self._continued:
                part.load_state_dict(state)
            else:
                for parameter in _last_layer(part).parameters():
                    parameter.zero_()


def _last_layer(part: nn.Module) -> nn.Module:
    return [module for module in part.modules() if list(module.parameters(recurse=False))][-1]


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


def decide(members: Sequence[Member], base: Sequence[EpochScore], words: int) -> Verdict:
    """Choose the number of epochs from the scores of `fold_members`.

    The epoch is the one with the lowest loss, which tells epochs apart more finely than words do. It is accepted if
    the base's wrong words become fewer by `LEAST_WORDS` and by `LEAST_DEVIATIONS` times the square root of their
    number. With less, in half a minute of speech, harm on other sentences is as likely as gain (docs/defaults.md).

    Args:
        members: trained.
        base: of each utterance without any adapter.
        words: of all references.
    """
    before = total(base)
    by_epoch = [total(scores) for scores in zip(*(member.scores for member in members))]
    best = min(range(len(by_epoch)), key=lambda epoch: by_epoch[epoch].loss)
    after = by_epoch[best]
    if before.word_errors - after.word_errors >= max(LEAST_WORDS, LEAST_DEVIATIONS * before.word_errors**0.5):
        return Verdict(best + 1, words, before, after)
    return Verdict(0, words, before, None)


def total(scores: Sequence[EpochScore]) -> EpochScore:
    """The sum over utterances."""
    return EpochScore(
        sum(score.loss for score in scores),
        sum(score.word_errors for score in scores),
        sum(score.character_errors for score in scores),
    )
