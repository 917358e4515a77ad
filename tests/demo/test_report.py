"""The demo's table, JSON file and picture."""

import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from demo.report import Person, Point, print_table, write_reports


def person(name: str, voice: str, base: float, *wers: float) -> Person:
    points = tuple(Point(*amount, wer) for amount, wer in zip([(0, 0.0), (3, 9.5), (10, 31.0)], wers, strict=True))
    return Person(name, voice, 40, base, points)


PEOPLE = [person("anna", "synthetic", 0.5, 0.3, 0.2, 0.1), person("lucas", "real", 0.2, 0.22, 0.2, 0.25)]


def test_json_has_fractions(tmp_path: Path) -> None:
    write_reports(PEOPLE, tmp_path)
    people = json.loads((tmp_path / "report.json").read_text())["people"]
    assert [list(one) for one in people] == [
        ["name", "voice", "test_utterances", "base_wer", "points", "relative_change"]
    ] * 2
    assert people[0]["relative_change"] == pytest.approx(-0.8)
    assert people[1]["relative_change"] == pytest.approx(0.25)
    assert people[0]["points"][1] == {"utterances": 3, "seconds": 9.5, "wer": 0.2}


def test_table_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(PEOPLE)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    (row,) = [line for line in lines if "anna" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["anna", "synthetic", "40", "50.0 %", "30.0 %", "20.0 %", "10.0 %", "-80 %"]


def test_picture_is_drawn(tmp_path: Path) -> None:
    write_reports(PEOPLE, tmp_path)
    pixels = imread(tmp_path / "report.png")
    assert pixels.shape[0] > 300 and pixels.std() > 0.05
