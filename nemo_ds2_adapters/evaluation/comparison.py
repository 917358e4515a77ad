"""What personal adapters did to the error rates: per user, and over all with confidence intervals."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from nemo_ds2_adapters.evaluation.errors import Score
from nemo_ds2_adapters.evaluation.recognised import Recognised

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


def compare(results: Sequence[Recognised]) -> Comparison:
    """Compare base and adapters, of results with users.

    Confidence intervals: percentile bootstrap over utterances (Bisani and Ney 2004, "Bootstrap estimates for
    confidence intervals in ASR performance evaluation"). Significance: two-sided paired permutation test on the number
    of word errors of each utterance. Both speak of new utterances of these users, not of new users.
    """
    by_user = defaultdict(list)
    for result in results:
        by_user[str(result.user)].append(result)
    users = [_user_result(user, own) for user, own in by_user.items()]
    users.sort(key=lambda user: ((user.base_wer or 0.0) - (user.adapted_wer or 0.0), user.user))
    before, after = ([getattr(result, name) for result in results] for name in ("base_score", "score"))
    words, base, adapted = _numbers(before, "words"), _numbers(before, "word_errors"), _numbers(after, "word_errors")
    characters = _numbers(before, "characters")
    return Comparison(
        users=users,
        utterances=len(results),
        words=int(words.sum()),
        base_wer=_estimate(base, words),
        adapted_wer=_estimate(adapted, words),
        wer_difference=_estimate(adapted - base, words),
        base_cer=_estimate(_numbers(before, "character_errors"), characters),
        adapted_cer=_estimate(_numbers(after, "character_errors"), characters),
        p_value=_p_value(base, adapted),
    )


def _numbers(scores: Sequence[Score], name: str) -> np.ndarray:
    return np.array([getattr(score, name) for score in scores], dtype=float)


def _user_result(user: str, results: Sequence[Recognised]) -> UserResult:
    base, adapted = (sum(scores, Score()) for scores in zip(*((r.base_score, r.score) for r in results)))
    return UserResult(
        user=user,
        utterances=len(results),
        words=base.words,
        base_wer=base.wer,
        base_cer=base.cer,
        adapted_wer=adapted.wer,
        adapted_cer=adapted.cer,
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
