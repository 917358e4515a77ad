"""What came of one user's training."""

from dataclasses import dataclass
from typing import Literal

from nemo_ds2_adapters.adapters.adapter import Adapter

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
