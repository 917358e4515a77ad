"""The table of all trials of a search."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nemo_ds2_adapters.cli.scripts.search import SearchTable
from nemo_ds2_adapters.evaluation.search import Trial, read_trials

TRIAL = Trial(0, ["layers=first", "batch_size=2"], 0.4, 0.1, 0.05, 0.06, 5, 12.5, max_base_loss=0.03)


def test_table_has_what_differs_and_the_best_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = [TRIAL, replace(TRIAL, number=1, overrides=["layers=all", "+lr=0.00123456", "batch_size=2"], wer_after=0)]
    for trial in trials:
        trial.append_to(tmp_path)
    assert read_trials(tmp_path) == trials[::-1]
    SearchTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert cells == [
        ["1", "all", "0.00123", "40.0 % -> 0.0 %", "5.0 % -> 6.0 %", "5", "0.667"],
        ["0", "first", "-", "40.0 % -> 10.0 %", "5.0 % -> 6.0 %", "5", "0.500"],
    ]
    assert not any("batch_size" in line for line in lines) and max(map(len, lines)) <= 100
    rows = list(csv.DictReader((tmp_path / "trials.csv").open(encoding="utf-8")))
    assert [row["lr"] for row in rows] == ["0.00123456", "-"]
    assert float(rows[0]["score"]) == pytest.approx(2 / 3)


def test_no_table_without_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SearchTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert capsys.readouterr().out == ""
