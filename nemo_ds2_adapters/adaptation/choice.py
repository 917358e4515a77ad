"""What a person is served, base, population's adapter or their own: by what became of people like them.

The record of a prior says, of everybody in the population, how many errors they made on their own utterances with the
base and with the population's adapter, and how much they gained on others. A linear regression of the gain on these
two rates (empirical Bayes: how much a person's own utterances are to be believed is learnt from everybody) predicts
that of a new person, and its residuals say how far the prediction may be off.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from nemo_ds2_adapters.adaptation.outcome import WHAT, Kind
from nemo_ds2_adapters.adaptation.prior import Experience, Step, VoicePrior
from nemo_ds2_adapters.evaluation.errors import Score

HARM = 0.01  # errors per word that a person may lose
MOST_HARM = 0.05  # probability of losing more
BEYOND = 1.1  # times the largest error rate in the record: nobody in the population was like that
RIDGE = 2.0  # experiences' worth of the belief that own utterances tell nothing


@dataclass(frozen=True)
class Choice:
    """What is kept for a person, and why."""

    kind: Kind
    gain: float  # expected: fewer word errors per word than with the base
    harm: float  # probability of losing more than `HARM`
    like: int  # people in the record it is judged by
    worse: int  # of these, who lost more than `HARM` with it
    reason: str  # for a person


def is_unlike(prior: VoicePrior, step: Step, base: Score, own: Score) -> bool:
    """Whether a person is so far from the population that its record says nothing about them.

    Args:
        prior: with its record.
        step: of the recipe.
        base: of the person's utterances with the base.
        own: the same with the population's adapter.
    """
    people = prior.experiences(step)
    rates = [one.own_prior_errors / one.own_words for one in people if one.own_words]
    return not rates or (
        (own.wer or 0.0) > BEYOND * max(rates)
        and (base.wer or 0.0) > BEYOND * max(one.own_base_errors / one.own_words for one in people if one.own_words)
    )


def choose(prior: VoicePrior, step: Step, seconds: float, base: Score, own: Score) -> Choice:
    """The kind with the largest expected gain whose probability of harm is at most `MOST_HARM`.

    Args:
        prior: with its record.
        step: of the recipe, by which the person's adapter is trained.
        seconds: of the person's speech.
        base: of the person's utterances with the base.
        own: the same with the population's adapter.
    """
    people = prior.experiences(step)
    options: list[Choice] = [Choice("base", 0.0, 0.0, len(people), 0, "")]
    words = max(base.words, 1)
    person = np.array([1.0, base.word_errors / words, (base.word_errors - own.word_errors) / words])
    for kind in get_args(Kind)[1:] if step.epochs else ("prior",):
        gain, harm = predict(people, kind, person)
        worse = sum(_gain(one, kind) < -HARM for one in people)
        options.append(Choice(kind, gain, harm, len(people), worse, ""))
    best = max((one for one in options if one.harm <= MOST_HARM), key=lambda one: one.gain)
    return Choice(best.kind, best.gain, best.harm, best.like, best.worse, _reason(best, options, people, seconds))


def predict(people: Sequence[Experience], kind: Kind, person: NDArray[np.float64]) -> tuple[float, float]:
    """Expected gain of a person, and the probability of losing more than `HARM`.

    Args:
        people: who were left out of the population.
        kind: what they were served.
        person: `[3]`: 1, error rate with the base, and gain by the population's adapter, both on own utterances.
    """
    features = np.array(
        [[1.0, one.own_base_errors / one.own_words, (one.own_base_errors - one.own_prior_errors) / one.own_words]
         for one in people]
    )  # fmt: skip
    gains = np.array([_gain(one, kind) for one in people])
    centre = np.array([0.0, *features[:, 1:].mean(axis=0)])
    x = features - centre
    scale = np.array([1.0, *(x[:, 1:].std(axis=0) + 1e-9)])
    x = x / scale
    precision = x.T @ x + np.diag([0.0, RIDGE, RIDGE])
    weights = np.linalg.solve(precision, x.T @ gains)
    freedom = max(len(people) - 3, 1)
    # Of the residuals, what comes of the few words that a gain was measured on says nothing about the person.
    noise = np.mean([_sampling_variance(one, kind) for one in people])
    residual = ((gains - x @ weights) ** 2).sum() / freedom
    new = (person - centre) / scale
    variance = max(residual - noise, 0.1 * residual) + residual * new @ np.linalg.solve(precision, new)
    expected = float(new @ weights)
    if variance <= 0:
        return expected, float(expected < -HARM)
    return expected, float(stats.t.cdf((-HARM - expected) / math.sqrt(variance), freedom))


def _gain(one: Experience, kind: Kind) -> float:
    errors = one.prior_errors if kind == "prior" else one.adapted_errors
    return (one.base_errors - errors) / one.words


def _sampling_variance(one: Experience, kind: Kind) -> float:
    """Of a gain measured on so many words, each error that comes or goes counted as by chance (Poisson)."""
    errors = one.prior_errors if kind == "prior" else one.adapted_errors
    return max(abs(one.base_errors - errors), 1) / one.words**2


def _reason(best: Choice, options: Sequence[Choice], people: Sequence[Experience], seconds: float) -> str:
    base = sum(one.base_errors for one in people)
    if best.kind == "base":
        risky = max(options[1:], key=lambda one: one.gain)
        return (
            f"{seconds:.0f} s of speech: nothing is safely better than the base "
            f"(expected {100 * risky.gain:+.1f} words in a hundred, {100 * risky.harm:.0f} % risk of losing one)"
        )
    errors = sum(one.prior_errors if best.kind == "prior" else one.adapted_errors for one in people)
    gain = 100 * (1 - errors / max(base, 1))
    return (
        f"{seconds:.0f} s of speech: with {WHAT[best.kind]}, people like this made {gain:.0f} % fewer errors, "
        f"{best.worse} of {best.like} lost more than one word in a hundred"
    )
