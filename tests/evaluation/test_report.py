"""Table, JSON, CSV and picture, of whatever data hold."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from nemo_ds2_adapters.errors import NemoDs2Error
from nemo_ds2_adapters.evaluation import report
from nemo_ds2_adapters.evaluation.comparison import compare
from tests.evaluation.test_comparison import score

HOSTILE = (
    "\x1b[31mred\x07",
    "a\u202egnp.exe",
    "two\nlines",
    "\x9b1m",
    "=1+1",
    "[red]",
    "x" * 100,
    "a\u2028b",
    "\ud800",
)


def shown(table) -> str:
    console = Console(width=report.WIDTH, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_of_a_comparison(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    scores = [score(f"사용자{i % 40}", 10, *map(int, generator.integers(0, 6, 2))) for i in range(120)]
    found = compare([*scores, score("x" * 60, 4, 0, 3), score("[red]\n", 4, 0, 4)])
    report.write_comparison(found, tmp_path / "r.jsonl")
    content = json.loads((tmp_path / "r.json").read_text("utf-8"))
    first, second, *_ = content["users"]
    assert (first["user"], second["user"]) == ("[red]\n", "x" * 60) and first["relative_change"] is None
    assert content["wer_difference"]["low"] < content["wer_difference"]["value"]
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["user"] for row in rows[1:]] == [user.user for user in found.users[1:]]
    assert rows[0]["user"] == "[red]\\n" and float(rows[2]["base_wer"]) == found.users[2].base_wer
    assert imread(tmp_path / "r.png").std() > 0
    text = shown(report.comparison_table(found))
    assert "... 12 more" in text and "x" * 18 in text and "[red]\\n" in text and found.users[3].user in text
    assert max(map(len, text.splitlines())) <= 100
    assert "42 users, 122 utterances, 1208 words" in report.summary(found)[0]


@dataclass(frozen=True)
class Result:
    user: str
    rate: float | None

    @property
    def percent(self) -> float | None:
        return None if self.rate is None else 100 * self.rate


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_an_output_controls_a_program(tmp_path: Path, name: str) -> None:
    """Neither a terminal, nor a text's direction, nor a spreadsheet."""
    rows = [report.as_row(Result(name, -0.5)), report.as_row(Result("b", None))]
    report.write_json({"users": rows}, tmp_path / "r.json")
    report.write_lines(rows, tmp_path / "r.jsonl")
    report.write_csv(rows, tmp_path / "r.csv")
    report.write_picture([(name, 0.5, 0.4), ("b", 0.1, 0.2), ("c", None, None)], tmp_path / "r.png", "title")
    texts = [(tmp_path / f"r.{ending}").read_bytes().decode("utf-8") for ending in ("json", "jsonl", "csv")]
    for text in (*texts, shown(report.table("title", ["user", "rate"], [(name, "1")] * 2, [0]))):
        assert text.replace("\n", "").replace("\r", "").isprintable()
    assert json.loads(texts[0])["users"] == rows == [json.loads(line) for line in texts[1].split("\n")[:2]]
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert not first["user"].startswith(("=", "+", "-", "@")) and first["rate"] == "-0.5"
    assert (second["rate"], second["percent"]) == ("", "")


def test_languages_are_left_readable(tmp_path: Path) -> None:
    report.write_json({"user": "홍길동"}, tmp_path / "r.json")
    assert "홍길동" in (tmp_path / "r.json").read_text("utf-8")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "r.json").mkdir()
    with pytest.raises(NemoDs2Error, match=r"r.json: cannot be written"):
        report.write_json({}, tmp_path / "r.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(NemoDs2Error, match=r"cannot be written"):
        report.write_lines([], tmp_path / "file" / "r.json")


@pytest.mark.parametrize("count", [0, 1, 12, 100])
def test_pictures_of_any_number(tmp_path: Path, count: int) -> None:
    report.write_picture([(f"user_{i}", 0.1 + i / 200, 0.1) for i in range(count)], tmp_path / "r.png", "title")
    assert imread(tmp_path / "r.png").std() > 0
