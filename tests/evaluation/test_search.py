"""What a trial is worth, and the table of all."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from nemo_ds2_adapters.evaluation.search import SearchTable, Trial, read_trials

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


def test_table_has_what_differs_and_the_best_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = [TRIAL, replace(TRIAL, number=1, overrides=["layers=all", "+lr=0.00123456", "batch_size=2"], wer_after=0)]
    for trial in trials:
        trial.append_to(tmp_path)
    assert read_trials(tmp_path) == trials[::-1]
    SearchTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:4]] == [
        ["1", "all", "0.00123", "40.0", "->", "0.0", "5.0", "->", "6.0", "5", "0.667"],
        ["0", "first", "-", "40.0", "->", "10.0", "5.0", "->", "6.0", "5", "0.500"],
    ]
    assert "batch_size" not in lines[1] and max(map(len, lines)) <= 100
    rows = list(csv.DictReader((tmp_path / "trials.csv").open(encoding="utf-8")))
    assert [row["lr"] for row in rows] == ["0.00123456", "-"]
    assert float(rows[0]["score"]) == pytest.approx(2 / 3)


def test_no_table_without_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SearchTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert capsys.readouterr().out == ""
