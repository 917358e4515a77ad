"""Errors out of fold say when to stop, and whether the adapter is kept."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ds2_adapters.adaptation.decision import Trial, Verdict, conclude, copies_of, decide, run_epoch, split
from nemo_ds2_adapters.adaptation.engine import TokenScore
from nemo_ds2_adapters.evaluation.errors import Score

Epochs = list[tuple[int, float]]  # errors and loss of each


class Fold:
    """Stands for a member; its weights are the number of the epoch."""

    held_out = range(4)

    def __init__(self, patience: int | None, max_epochs: int) -> None:
        self.settings = SimpleNamespace(patience=patience, max_epochs=max_epochs)
        self.epochs = 0

    def saved(self) -> list[int]:
        return [self.epochs]

    def restore(self, weights: list[int]) -> None:
        (self.epochs,) = weights


class Curves:
    """Stands for the training: what each fold reaches, by epoch."""

    def __init__(self, curves: dict[Fold, Epochs]) -> None:
        self.curves = curves

    def train_epoch(self, members: list[Fold]) -> None:
        for member in members:
            member.epochs += 1

    def token_scores(self, members: list[Fold]) -> list[list[TokenScore]]:
        return [[TokenScore(*self.curves[member][member.epochs - 1])] for member in members]

    def scores(self, members: list[Fold]) -> list[list[Score]]:
        return [[Score(50)] * 4 for _ in members]  # all right: any epoch is accepted


def run(training: Curves, *trials: Trial) -> list[Verdict]:
    while running := [one for one in trials if not one.is_over]:
        run_epoch(training, running)
    return [conclude(training, one) for one in trials]


def trial(curves: list[Epochs], patience: int | None = None) -> tuple[Trial, Curves]:
    folds = [Fold(patience, len(curve)) for curve in curves]
    return Trial(folds, {i: Score(50, 9, 200, 9) for i in range(4)}), Curves(dict(zip(folds, curves)))


def errors(*numbers: int) -> Epochs:
    return [(number, 1.0) for number in numbers]


@pytest.mark.parametrize(
    ("curves", "patience", "best", "ran"),
    [
        ([errors(5, 3, 4, 2, 6)], None, 4, 5),
        ([errors(5, 3, 4, 2, 6)], 1, 2, 3),
        ([errors(5, 3, 4, 2, 6)], 2, 4, 5),
        ([errors(5, 1, 4, 4, 4)], 3, 2, 5),
        ([[(5, 3.0), (4, 3.0), (4, 2.0), (5, 1.0)]], None, 3, 4),  # losses tell equal errors apart
        ([errors(5, 3, 1), errors(1, 3, 9)], None, 1, 3),  # sums over folds; the first of equal ones
    ],
)
def test_training_stops_when_errors_do_not_become_fewer(
    curves: list[Epochs], patience: int | None, best: int, ran: int
) -> None:
    one, training = trial(curves, patience)
    (verdict,) = run(training, one)
    assert (verdict.epochs, len(one.curve)) == (best, ran)
    assert all(fold.epochs == best for fold in one.members)  # whose weights were scored


def test_each_trial_stops_by_itself() -> None:
    short, curves = trial([errors(1, 2, 3, 4, 5)], patience=1)
    long, more = trial([errors(5, 4, 3, 2, 1)], patience=1)
    curves.curves.update(more.curves)
    assert [verdict.epochs for verdict in run(curves, short, long)] == [1, 5]
    assert (len(short.curve), len(long.curve)) == (2, 5)


def test_others_are_trained_along() -> None:
    one, training = trial([errors(2, 1)])
    other = Fold(None, 9)
    run_epoch(training, [one], [other])
    run_epoch(training, [], [other])
    assert (len(one.curve), other.epochs) == (1, 2)


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 9)), min_size=1, max_size=12), st.integers(1, 5))
def test_patience_stops_no_earlier_and_no_later(curve: Epochs, patience: int) -> None:
    one, training = trial([curve], patience)
    run(training, one)
    ran = one.curve
    assert ran == curve[: len(ran)]
    best = ran.index(min(ran))
    assert len(ran) - 1 - best <= patience
    assert len(ran) == len(curve) or len(ran) - 1 - best == patience


def scores(*errors: tuple[int, int]) -> list[Score]:
    return [Score(20, words, 80, characters) for words, characters in errors]


@pytest.mark.parametrize(
    ("base", "adapted", "is_accepted"),
    [
        ([(3, 6), (2, 4), (2, 3)], [(1, 2), (0, 1), (0, 1)], True),
        ([(1, 2)], [(0, 0)], False),  # one word is chance
        ([(2, 4)], [(0, 0)], False),  # so is what one utterance says: 1 standard deviation
        ([(2, 4)] * 2, [(0, 0)] * 2, False),
        ([(2, 4)] * 3, [(0, 0)] * 3, True),
        ([(2, 4)] * 4, [(0, 0)] * 3 + [(3, 4)], False),  # one got worse
        ([(2, 4)] * 3, [(0, 4)] * 3, False),  # words without characters
        ([(2, 4)] * 3, [(2, 0)] * 3, False),  # and the other way round
        ([(0, 0)] * 9, [(0, 0)] * 9, False),
    ],
)
def test_what_is_accepted(base: list, adapted: list, is_accepted: bool) -> None:
    verdict = decide(7, scores(*base), scores(*adapted))
    assert verdict.epochs == (7 if is_accepted else 0)
    before, after = (sum(words for words, _ in errors) / (20 * len(base)) for errors in (base, adapted))
    assert (verdict.wer_before, verdict.wer_after) == (before, after if is_accepted else before)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_nobody_is_left_out_of_a_trial_whom_the_rule_could_accept(errors: list[tuple[int, int]]) -> None:
    base, adapted = (scores(*((one[k], one[k]) for one in errors)) for k in (0, 1))
    if decide(7, base, adapted).epochs:
        assert Trial([], dict(enumerate(base))).may_pass


def test_nothing_is_trained_where_no_adapter_could_be_accepted() -> None:
    fold = Fold(None, 5)
    base = dict(enumerate([Score(50, 30, 200, 90), Score(50, 9, 200, 9), Score(50), Score(50)]))
    (verdict,) = run(Curves({fold: errors(5, 4, 3, 2, 1)}), Trial([fold], base))
    assert verdict == Verdict(0, sum(base.values(), Score()), None)
    assert fold.epochs == 0


def test_copies_of_a_recording_stay_together_and_are_scored_once() -> None:
    copies = copies_of([3, 4, 5, 6, 7, 8], ["a", "b", "a", "c", "b", "a"])
    assert copies == {3: [3, 5, 8], 4: [4, 7], 6: [6]}


@given(st.integers(2, 40), st.integers(2, 6))
def test_each_is_left_out_once(count: int, folds: int) -> None:
    parts = split(range(count), folds)
    assert sorted(i for part in parts for i in part) == list(range(count))
    assert len(parts) == (count if count < 2 * folds else folds)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
