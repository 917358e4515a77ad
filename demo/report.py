"""The demo's result: a table, a JSON file and a picture."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from nemo_ds2_adapters.evaluation.report import WIDTH, as_row, percent, table, write_json
from nemo_ds2_adapters.formats.atomic import write_atomically


@dataclass(frozen=True)
class Point:
    """What an adapter by so much speech did for a person, on test sentences it was not trained on."""

    utterances: int  # 0: the population's adapter, the person has said nothing yet
    seconds: float  # of speech
    wer: float  # fraction


@dataclass(frozen=True)
class Person:
    """What became of one person."""

    name: str
    voice: str  # synthetic or real
    test_utterances: int
    base_wer: float  # fraction
    points: tuple[Point, ...]  # by amount of speech, from nothing

    @property
    def relative_change(self) -> float:
        """Of the word error rate with the most speech, as a fraction: -0.5 is half of the errors gone."""
        return self.points[-1].wer / self.base_wer - 1 if self.base_wer else 0.0


def write_reports(people: Sequence[Person], folder: Path) -> None:
    """`report.json`, `{"people": [{"name", ...}, ...]}` with the fields of `Person`, and `report.png`."""
    write_json({"people": [as_row(person) for person in people]}, folder / "report.json")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for i, person in enumerate(people):
        seconds, wers = zip(*((point.seconds, 100 * point.wer) for point in person.points))
        axes.axhline(100 * person.base_wer, color=f"C{i}", linewidth=1, linestyle=":")
        axes.plot(seconds, wers, color=f"C{i}", marker="o", label=f"{person.name} ({person.voice})")
    axes.set(xlabel="seconds of the person's speech", ylabel="word error rate, %")
    axes.set_title("A personal adapter by how much a person has said (dotted: the base)")
    axes.set_ylim(0, None)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(framealpha=1, edgecolor="none")  # lines pass behind it
    file = io.BytesIO()
    figure.savefig(file, dpi=150)
    write_atomically(folder / "report.png", file.getvalue())


def print_table(people: Sequence[Person]) -> None:
    """One row per person."""
    by_amount = (f"adapter by\n{point.utterances} sentences" for point in people[0].points[1:])
    headings = ("person", "voice", "test\nsentences", "base\nWER", "no speech,\nthe prior", *by_amount, "change")
    rows = [
        (
            person.name,
            person.voice,
            str(person.test_utterances),
            percent(person.base_wer),
            *(percent(point.wer) for point in person.points),
            percent(person.relative_change, "+", 0),
        )
        for person in people
    ]
    title = "Word error rate on sentences that no adapter was trained on"
    Console(width=WIDTH).print(table(title, headings, rows))
