"""The demo's result: a table, a JSON file and a picture."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table


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


def write_json(results: Sequence[UserResult], path: Path) -> None:
    """`{"users": [{"user", "utterances", "base_wer", "adapted_wer", "relative_change", "seconds"}, ...]}`."""
    users = [{**asdict(result), "relative_change": result.relative_change} for result in results]
    path.write_text(json.dumps({"users": users}, indent=2) + "\n", "utf-8")


def print_table(results: Sequence[UserResult]) -> None:
    """One row per user."""
    table = Table("user", title="Word error rate on sentences that no adapter was trained on")
    for heading in ("utterances", "base WER", "adapted WER", "relative change", "seconds"):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(
            result.user,
            str(result.utterances),
            f"{100 * result.base_wer:.1f} %",
            f"{100 * result.adapted_wer:.1f} %",
            f"{100 * result.relative_change:+.0f} %",
            f"{result.seconds:.0f}",
        )
    Console().print(table)


def write_picture(results: Sequence[UserResult], path: Path) -> None:
    """Bars of the word error rate per user, base beside adapted."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    positions = np.arange(len(results))
    for offset, label, colour, values in (
        (-0.2, "base", "#9aa5b1", [100 * result.base_wer for result in results]),
        (0.2, "with adapter", "#2a7f62", [100 * result.adapted_wer for result in results]),
    ):
        bars = axes.bar(positions + offset, values, width=0.38, label=label, color=colour)
        axes.bar_label(bars, fmt="%.1f")
    axes.set_xticks(positions, [result.user for result in results])
    axes.set_ylabel("word error rate, %")
    axes.set_title("One personal adapter per user, test sentences")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
