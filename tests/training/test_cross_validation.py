"""Out-of-fold losses say when to stop, out-of-fold words whether the adapter is kept."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ds2_adapters.training.cross_validation import Trial, Verdict, conclude, decide, run_epoch
from nemo_ds2_adapters.training.together import CTCScore


class Fold:
    """Stands for a member; its weights are the number of the epoch."""

    def __init__(self, patience: int | None, max_epochs: int) -> None:
        self.settings = SimpleNamespace(patience=patience, max_epochs=max_epochs)
        self.epochs = 0

    def saved(self) -> list[int]:
        return [self.epochs]

    def restore(self, weights: list[int]) -> None:
        (self.epochs,) = weights


class Curves:
    """Stands for the training: each fold's losses by epoch."""

    def __init__(self, losses: dict[Fold, list[float]]) -> None:
        self._losses = losses

    def train_epoch(self, members: list[Fold]) -> None:
        for member in members:
            member.epochs += 1

    def losses(self, members: list[Fold]) -> list[list[float]]:
        return [[self._losses[member][member.epochs - 1]] for member in members]

    def scores(self, members: list[Fold]) -> list[list[CTCScore]]:
        return [[CTCScore(self._losses[member][member.epochs - 1], 0, 0)] for member in members]


def run(training: Curves, *trials: Trial) -> list[Verdict]:
    while running := [one for one in trials if not one.is_over]:
        run_epoch(training, running)
    return [conclude(training, one) for one in trials]


def trial(curves: list[list[float]], patience: int | None = None) -> tuple[Trial, Curves]:
    folds = [Fold(patience, len(curve)) for curve in curves]
    return Trial(folds, [CTCScore(100.0, 10, 10)], words=20), Curves(dict(zip(folds, curves)))


@pytest.mark.parametrize(
    ("curves", "patience", "best", "ran"),
    [
        ([[5.0, 3.0, 4.0, 2.0, 6.0]], None, 4, 5),
        ([[5.0, 3.0, 4.0, 2.0, 6.0]], 1, 2, 3),
        ([[5.0, 3.0, 4.0, 2.0, 6.0]], 2, 4, 5),
        ([[5.0, 1.0, 4.0, 4.0, 4.0]], 3, 2, 5),
        ([[5.0, 3.0, 1.0], [1.0, 3.0, 9.0]], None, 1, 3),  # sums over folds; the first of equal ones
    ],
)
def test_training_stops_when_losses_turn_upwards(
    curves: list[list[float]], patience: int | None, best: int, ran: int
) -> None:
    one, training = trial(curves, patience)
    (verdict,) = run(training, one)
    assert (verdict.epochs, len(one.losses)) == (best, ran)
    assert all(fold.epochs == best for fold in one.members)  # whose weights were scored


def test_each_trial_stops_by_itself() -> None:
    short, curves = trial([[1.0, 2.0, 3.0, 4.0, 5.0]], patience=1)
    long, more = trial([[5.0, 4.0, 3.0, 2.0, 1.0]], patience=1)
    curves._losses.update(more._losses)
    assert [verdict.epochs for verdict in run(curves, short, long)] == [1, 5]
    assert (len(short.losses), len(long.losses)) == (2, 5)


def test_others_are_trained_along() -> None:
    one, training = trial([[2.0, 1.0]])
    other = Fold(None, 9)
    run_epoch(training, [one], [other])
    run_epoch(training, [], [other])
    assert (len(one.losses), other.epochs) == (1, 2)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12), st.integers(1, 5))
def test_patience_stops_no_earlier_and_no_later(losses: list[float], patience: int) -> None:
    one, training = trial([losses], patience)
    run(training, one)
    ran = one.losses
    assert ran == losses[: len(ran)]
    best = ran.index(min(ran))
    assert len(ran) - 1 - best <= patience
    assert len(ran) == len(losses) or len(ran) - 1 - best == patience


def scores(*words: int) -> list[CTCScore]:
    return [CTCScore(math.nan, errors, 0) for errors in words]


@pytest.mark.parametrize(
    ("base", "adapted", "epochs"),
    [
        ([6], [1], 7),
        ([5], [4], 0),  # one word is chance
        ([25], [16], 0),  # so is less than two standard deviations
        ([25], [15], 7),
        ([0], [0], 0),
        ([3, 6], [1, 2], 7),
    ],
)
def test_what_is_accepted(base: list[int], adapted: list[int], epochs: int) -> None:
    verdict = decide(7, scores(*base), scores(*adapted), words=20)
    assert verdict.epochs == epochs
    assert verdict.wer_before == sum(base) / 20
    assert verdict.wer_after == (sum(adapted) if epochs else sum(base)) / 20
