"""The demo's result: a table, a JSON file and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from nemo_ds2_adapters.evaluation.report import WIDTH, as_row, percent, table, write_json, write_picture


@dataclass(frozen=True)
class UserResult:
    """What an adapter did for one user, on test sentences it was not trained on."""

    user: str
    utterances: int
    base_wer: float  # fraction
    adapted_wer: float  # fraction
    seconds: float  # of training, start of the script included

    @property
    def relative_change(self) -> float:
        """Of the word error rate, as a fraction: -0.5 is half of the errors gone."""
        return self.adapted_wer / self.base_wer - 1 if self.base_wer else 0.0


def write_reports(results: Sequence[UserResult], folder: Path) -> None:
    """`report.json`, `{"users": [{"user", ...}, ...]}` with the fields of `UserResult`, and `report.png`."""
    write_json({"users": [as_row(result) for result in results]}, folder / "report.json")
    rates = [(result.user, result.base_wer, result.adapted_wer) for result in results]
    write_picture(rates, folder / "report.png", "One personal adapter per user, test sentences")


def print_table(results: Sequence[UserResult]) -> None:
    """One row per user."""
    headings = ("user", "utterances", "base WER", "adapted WER", "relative change", "seconds")
    rows = [
        (
            result.user,
            str(result.utterances),
            percent(result.base_wer),
            percent(result.adapted_wer),
            percent(result.relative_change, "+", 0),
            f"{result.seconds:.0f}",
        )
        for result in results
    ]
    title = "Word error rate on sentences that no adapter was trained on"
    Console(width=WIDTH).print(table(title, headings, rows))
