"""What personal adapters did to the error rates: per user, and over all with confidence intervals."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from nemo_ds2_adapters.evaluation.users import PairedScore

RESAMPLES = 9999
CONFIDENCE = 0.95
AT_ONCE = 2**22  # numbers that resampling holds in memory


@dataclass(frozen=True)
class UserResult:
    """Error rates of one user, as fractions of the reference's words or characters; None if it has none."""

    user: str
    utterances: int
    words: int
    base_wer: float | None
    base_cer: float | None
    adapted_wer: float | None
    adapted_cer: float | None

    @property
    def relative_change(self) -> float | None:
        """Of the word error rate: -0.5 is half of the errors gone. None if the base made none."""
        if not self.base_wer or self.adapted_wer is None:
            return None
        return self.adapted_wer / self.base_wer - 1

    @property
    def got_worse(self) -> bool:
        """Whether the adapter makes more word errors than the base."""
        return (self.adapted_wer or 0.0) > (self.base_wer or 0.0)


@dataclass(frozen=True)
class Estimate:
    """A value over all utterances and its 95 % confidence interval, both None if there are too few utterances."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Base and adapters over all utterances of all users; rates and their difference as fractions."""

    users: list[UserResult]  # those who got worse first, worst first
    utterances: int
    words: int
    base_wer: Estimate
    adapted_wer: Estimate
    wer_difference: Estimate  # adapted minus base: negative is better
    base_cer: Estimate
    adapted_cer: Estimate
    p_value: float  # that signs of the utterances' differences fall so far to one side by chance

    @property
    def worse(self) -> list[UserResult]:
        """The users who got worse."""
        return [user for user in self.users if user.got_worse]


def compare(scores: Sequence[PairedScore]) -> Comparison:
    """Compare base and adapters.

    Confidence intervals: percentile bootstrap over utterances (Bisani and Ney 2004, "Bootstrap estimates for
    confidence intervals in ASR performance evaluation"). Significance: two-sided paired permutation test on the number
    of word errors of each utterance. Both speak of new utterances of these users, not of new users.
    """
    by_user = defaultdict(list)
    for score in scores:
        by_user[score.user].append(score)
    users = [_user_result(user, own) for user, own in by_user.items()]
    users.sort(key=lambda user: ((user.base_wer or 0.0) - (user.adapted_wer or 0.0), user.user))
    words, base, adapted = _columns(scores, "words", "base_word_errors", "adapted_word_errors")
    characters, base_cer, adapted_cer = _columns(
        scores, "characters", "base_character_errors", "adapted_character_errors"
    )
    return Comparison(
        users=users,
        utterances=len(scores),
        words=int(words.sum()),
        base_wer=_estimate(base, words),
        adapted_wer=_estimate(adapted, words),
        wer_difference=_estimate(adapted - base, words),
        base_cer=_estimate(base_cer, characters),
        adapted_cer=_estimate(adapted_cer, characters),
        p_value=_p_value(base, adapted),
    )


def _columns(scores: Iterable[PairedScore], *names: str) -> list[np.ndarray]:
    return list(np.array([[getattr(score, name) for name in names] for score in scores], dtype=float).T)


def _user_result(user: str, scores: list[PairedScore]) -> UserResult:
    words, characters = (sum(getattr(score, unit) for score in scores) for unit in ("words", "characters"))

    def rate(errors: str, total: int) -> float | None:
        return sum(getattr(score, errors) for score in scores) / total if total else None

    return UserResult(
        user=user,
        utterances=len(scores),
        words=words,
        base_wer=rate("base_word_errors", words),
        base_cer=rate("base_character_errors", characters),
        adapted_wer=rate("adapted_word_errors", words),
        adapted_cer=rate("adapted_character_errors", characters),
    )


def _estimate(errors: np.ndarray, totals: np.ndarray) -> Estimate:
    if not totals.sum():
        return Estimate(None)
    value = float(errors.sum() / totals.sum())
    if len(errors) < 2:
        return Estimate(value)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may have no words at all
        result = stats.bootstrap(
            (errors, totals),
            lambda errors, totals, axis: errors.sum(axis=axis) / totals.sum(axis=axis),
            n_resamples=RESAMPLES,
            batch=max(1, AT_ONCE // len(errors)),
            paired=True,
            vectorized=True,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(0),
        )
    low, high = map(float, result.confidence_interval)
    return Estimate(value, low, high) if np.isfinite([low, high]).all() else Estimate(value)


def _p_value(base: np.ndarray, adapted: np.ndarray) -> float:
    if len(base) < 2 or (base == adapted).all():
        return 1.0
    result = stats.permutation_test(
        (base, adapted),
        lambda base, adapted, axis: (adapted - base).sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, AT_ONCE // len(base)),
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)
