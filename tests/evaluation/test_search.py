"""What a trial of a search is worth."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ds2_adapters.evaluation.search import Trial

TRIAL = Trial(0, ["layers=first", "batch_size=2"], 0.4, 0.1, 0.05, 0.06, 5, 12.5, max_base_loss=0.03)
rates = st.floats(0.0, 2.0)


@pytest.mark.parametrize(
    ("change", "score"),
    [
        ({}, 0.75 * 2 / 3),
        ({"base_wer_after": 0.05}, 0.75),
        ({"base_wer_after": 0.01}, 0.75),  # NeMo takes this for a loss
        ({"base_wer_after": 0.08}, 0.0),
        ({"base_wer_after": 0.5}, 0.0),
        ({"wer_after": 0.5}, 0.0),
        ({"wer_before": 0.0, "wer_after": 0.0}, 0.0),
    ],
)
def test_score(change: dict[str, float], score: float) -> None:
    assert replace(TRIAL, **change).score == pytest.approx(score, abs=1e-9)


@given(before=rates, after=rates, base_before=rates, base_after=rates)
def test_score_is_never_outside_0_to_1(before: float, after: float, base_before: float, base_after: float) -> None:
    trial = Trial(0, [], before, after, base_before, base_after, 1, 1.0, max_base_loss=0.03)
    assert 0.0 <= trial.score <= 1.0
