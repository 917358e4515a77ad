"""Base and personal adapters, compared by hand and by known distributions."""

from pathlib import Path

import pytest

from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.evaluation.comparison import compare
from nemo_ds2_adapters.evaluation.errors import Score
from nemo_ds2_adapters.evaluation.recognised import Recognised


def score(user: str, words: int, base: int, adapted: int) -> Recognised:
    before, after = (Score(words, errors, 5 * words, 2 * errors) for errors in (base, adapted))
    return Recognised(Utterance(Path("a.wav"), "r", 1.0), "a", after, user, "b", before)


def test_comparison_by_hand() -> None:
    scores = [
        *(score("better", 10, 4, 2) for _ in range(10)),
        *(score("slightly worse", 10, 1, 2) for _ in range(2)),
        score("much worse", 4, 0, 3),
        score("equal", 5, 1, 1),
        score("silent", 0, 0, 0),
    ]
    found = compare(scores)
    assert [user.user for user in found.users] == ["much worse", "slightly worse", "equal", "silent", "better"]
    assert [user.user for user in found.worse] == ["much worse", "slightly worse"]
    assert (found.utterances, found.words) == (15, 129)
    much, slightly, equal, silent, better = found.users
    assert (better.base_wer, better.adapted_wer, better.relative_change) == (0.4, 0.2, -0.5)
    assert (better.base_cer, better.utterances, better.words) == (pytest.approx(0.16), 10, 100)
    assert much.relative_change is None and silent.base_wer is None and equal.relative_change == 0
    assert slightly.relative_change == 1.0
    assert found.base_wer.value == pytest.approx(43 / 129) and found.adapted_wer.value == pytest.approx(28 / 129)
    assert found.wer_difference.value == pytest.approx(-15 / 129)
    for estimate in (found.base_wer, found.adapted_wer, found.wer_difference, found.base_cer, found.adapted_cer):
        assert estimate.low < estimate.value < estimate.high
    assert found.wer_difference.high < 0 and found.p_value < 0.05


def test_exact_significance() -> None:
    """With five utterances all signs can be tried: only 2 of 32 ways are as extreme as five improvements."""
    assert compare([score("a", 5, 3, 1)] * 5).p_value == pytest.approx(2 / 32)
    assert compare([score("a", 5, 3, 3)] * 5).p_value == 1.0


def test_interval_of_a_known_distribution() -> None:
    """Half of the utterances are all wrong: the standard error of the rate is sqrt(0.25 / n)."""
    found = compare([score("a", 10, 10 * (i % 2), 0) for i in range(400)])
    assert found.base_wer.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.005)
    assert found.base_wer.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.005)


def test_too_few_utterances() -> None:
    found = compare([score("a", 5, 3, 1)])
    assert found.base_wer.value == 0.6 and found.base_wer.low is None and found.p_value == 1.0
    assert compare([score("a", 0, 0, 0)] * 3).base_wer.value is None
