"""What a person is served, base, population's adapter or their own: by what became of people like them.

With an adapter a person makes `factor` times the errors that they make with the base. Of the errors counted with and
without it, its share is then `factor / (1 + factor)`, whatever was said and however hard it was (conditional on their
sum, two Poisson counts are binomial). Over people this share is Beta distributed; mean and width of that, and how
much the errors in a person's own utterances tell about others, are learnt from the prior's record (empirical Bayes,
over a grid instead of one best value). Somebody new may be like nobody in the record, by the rule of succession with a
probability of one in its people + 2; of them only their own utterances tell anything.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincc, betaln, expit, logsumexp

from nemo_ds2_adapters.adaptation.voice_prior.prior import Experience, Step, VoicePrior
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.evaluation.errors import Score

Kind = Literal["base", "prior", "adapted"]
WHAT: dict[str, str] = {"base": "the base", "prior": "the population's adapter", "adapted": "an adapter of their own"}
NOT_FINITE = "training did not converge, weights are not finite"


@dataclass(frozen=True)
class Outcome:
    """What is kept for a user, and why. Word error rates are fractions, of the user's own utterances.

    Args:
        adapter: to be used; one that changes nothing where the base is kept. None where there is a problem, or where
            the base is kept and no adapter of this kind is the base.
        kind: of what is kept: the base, the population's adapter, or one of the user's own.
        reason: in words.
        wer_before: with the base.
        wer_after: with what is kept, on utterances that it was not trained on; with a prior, what is expected.
        is_expected: the word error rate after is what the record of a prior promises.
        epochs: of training, 0 if none was kept.
        problem: why there is nothing.
    """

    adapter: Adapter | None = None
    kind: Kind = "base"
    reason: str = ""
    wer_before: float | None = None
    wer_after: float | None = None
    is_expected: bool = False
    epochs: int = 0
    problem: str | None = None


HARM = 0.01  # errors per word that a person may lose
MOST_HARM = 0.05  # probability of losing more
BEYOND = 1.1  # times the largest error rate in the record: nobody in the population was like that
# The grid: people's mean share, how many errors' worth of belief it is (their spread), and the weight of own errors.
MEAN, BELIEF, WEIGHT = (
    axis.ravel()
    for axis in np.meshgrid(np.arange(0.04, 0.97, 0.02), np.geomspace(4, 400, 7), [0.0, 0.5, 1.0, 2.0], indexing="ij")
)


@dataclass(frozen=True)
class Choice:
    """What is kept for a person, and why."""

    kind: Kind
    gain: float  # expected: the share of the base's errors that goes away
    harm: float  # probability of losing more than `HARM`
    like: int  # people in the record it is judged by
    worse: int  # of these, who lost more than `HARM` with it
    reason: str  # for a person


def choose(prior: VoicePrior, step: Step, seconds: float, base: Score, own: Score) -> Choice:
    """The kind with the largest expected gain whose probability of harm is at most `MOST_HARM`.

    The base, if the record has nobody, or nobody who was understood so badly: of such a person it says nothing.

    Args:
        prior: with its record.
        step: of the recipe, by which the person's adapter is trained.
        seconds: of the person's speech.
        base: of the person's utterances with the base.
        own: the same with the population's adapter.
    """
    people = prior.experiences(step)
    if _is_beyond(people, base, own):
        return Choice("base", 0.0, 0.0, 0, 0, f"{seconds:.0f} s of speech: nobody in the prior's record is like this")
    options = [Choice("base", 0.0, 0.0, len(people), 0, "")]
    for kind in get_args(Kind)[1:] if step.epochs else ("prior",):
        gain, harm = predict(people, kind, base, own)
        worse = sum(_errors(one, kind) - one.base_errors > HARM * one.words for one in people)
        options.append(Choice(kind, gain, harm, len(people), worse, ""))
    best = max((one for one in options if one.harm <= MOST_HARM), key=lambda one: one.gain)
    return Choice(best.kind, best.gain, best.harm, best.like, best.worse, _reason(best, options, people, seconds))


def is_of_use(prior: VoicePrior) -> bool:
    """Whether anybody in its record, none of whom was in its population, would be served anything but the base."""
    return any(
        choose(
            prior,
            step,
            one.seconds,
            Score(one.own_words, one.own_base_errors),
            Score(one.own_words, one.own_prior_errors),
        ).kind
        != "base"
        for step in prior.recipe
        for one in prior.experiences(step)
    )


def predict(people: Sequence[Experience], kind: Kind, base: Score, own: Score) -> tuple[float, float]:
    """Expected share of a person's errors that goes away, and the probability of losing more than `HARM`.

    Args:
        people: who were left out of the population.
        kind: what they were served.
        base: of the person's utterances with the base.
        own: the same with the population's adapter, which has not heard them.
    """
    without, with_it = base.word_errors, own.word_errors
    rate = (without + 1) / (base.words + 1)  # not 0: who made no error may yet make one
    most = (rate + HARM) / (2 * rate + HARM)  # the share at which `HARM` is lost
    likely = _likelihood(tuple(people), kind)
    a, b = MEAN * BELIEF + WEIGHT * with_it, (1 - MEAN) * BELIEF + WEIGHT * without
    # Of a person like those in the record, and of one like nobody.
    harms = float(likely @ betaincc(a, b, most)), float(betaincc(1 + with_it, 1 + without, most))
    shares = float(likely @ (a / (a + b))), (1 + with_it) / (2 + with_it + without)
    unlike = _unlikeness(people, with_it, without)
    harm, share = (like + unlike * (other - like) for like, other in (harms, shares))
    return 1 - share / (1 - share), harm


@lru_cache(maxsize=64)  # the same for everybody with about as much speech
def _likelihood(people: tuple[Experience, ...], kind: Kind) -> NDArray[np.float64]:
    """Of each point of the grid, `[G]`; their sum is 1."""
    likelihood = np.zeros_like(MEAN)
    for one in people:
        a = MEAN * BELIEF + WEIGHT * one.own_prior_errors
        b = (1 - MEAN) * BELIEF + WEIGHT * one.own_base_errors
        likelihood += betaln(a + _errors(one, kind), b + one.base_errors) - betaln(a, b)
    return np.exp(likelihood - logsumexp(likelihood))


def _unlikeness(people: Sequence[Experience], with_it: int, without: int) -> float:
    """Probability that who makes so many errors with and without the population's adapter is like nobody before."""
    a, b = MEAN * BELIEF, (1 - MEAN) * BELIEF
    like = logsumexp(betaln(a + with_it, b + without) - betaln(a, b), b=_likelihood(tuple(people), "prior"))
    return float(expit(betaln(1 + with_it, 1 + without) - like - math.log(len(people) + 1)))


def _is_beyond(people: Sequence[Experience], base: Score, own: Score) -> bool:
    """Whether somebody makes more errors than anybody in the record, by base and by population's adapter."""
    rates = [
        (one.own_base_errors / one.own_words, one.own_prior_errors / one.own_words) for one in people if one.own_words
    ]
    return not rates or all((score.wer or 0.0) > BEYOND * max(some) for score, some in zip((base, own), zip(*rates)))


def _errors(one: Experience, kind: Kind) -> int:
    return one.prior_errors if kind == "prior" else one.adapted_errors


def _reason(best: Choice, options: Sequence[Choice], people: Sequence[Experience], seconds: float) -> str:
    if best.kind == "base":
        risky = max(options[1:], key=lambda one: one.gain)
        return (
            f"{seconds:.0f} s of speech: nothing is safely better than the base ({WHAT[risky.kind]} would change "
            f"errors by {-100 * risky.gain:+.0f} %, at a risk of {100 * risky.harm:.0f} % to lose more than one word "
            "in a hundred)"
        )
    base = sum(one.base_errors for one in people)
    gain = 100 * (1 - sum(_errors(one, best.kind) for one in people) / max(base, 1))
    return (
        f"{seconds:.0f} s of speech: with {WHAT[best.kind]}, people like this made {gain:.0f} % fewer errors, "
        f"{best.worse} of {best.like} lost more than one word in a hundred"
    )
