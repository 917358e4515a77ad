"""The demo's table, JSON file and picture."""

import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from demo.report import UserResult, print_table, write_reports

RESULTS = [UserResult("anna", 40, 0.5, 0.1, 61.3), UserResult("boris", 40, 0.2, 0.25, 58.0)]


def test_json_has_fractions(tmp_path: Path) -> None:
    write_reports(RESULTS, tmp_path)
    users = json.loads((tmp_path / "report.json").read_text())["users"]
    assert [list(user) for user in users] == [
        ["user", "utterances", "base_wer", "adapted_wer", "seconds", "relative_change"]
    ] * 2
    assert users[0]["relative_change"] == pytest.approx(-0.8)
    assert users[1]["relative_change"] == pytest.approx(0.25)


def test_table_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(RESULTS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    (row,) = [line for line in lines if "anna" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["anna", "40", "50.0 %", "10.0 %", "-80 %", "61"]


def test_picture_is_drawn(tmp_path: Path) -> None:
    write_reports(RESULTS, tmp_path)
    pixels = imread(tmp_path / "report.png")
    assert pixels.shape[0] > 300 and pixels.std() > 0.05
