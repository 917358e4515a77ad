"""What a run over many speakers reached: for people and programs."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

SHOWN = 30  # rows of the table on the screen


@dataclass(frozen=True)
class SpeakerResult:
    """One speaker. Word error rates are fractions, over the training utterances, each scored out of fold."""

    user: str
    status: str  # `trained`, `updated`, `base kept`, `finished before`, or `skipped`
    utterances: int
    seconds: float  # of speech
    wer_before: float | None = None
    wer_after: float | None = None
    epochs: int | None = None
    problem: str | None = None  # why it was skipped
    findings: list[str] = field(default_factory=list)  # of the recordings

    @property
    def relative_change(self) -> float | None:
        """Of the word error rate, as a fraction: -0.5 is half of the errors gone."""
        if not self.wer_before or self.wer_after is None:
            return None
        return self.wer_after / self.wer_before - 1


def write_reports(results: Sequence[SpeakerResult], folder: Path) -> None:
    """`report.json`, `report.csv` and `report.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(result), "relative_change": result.relative_change} for result in results]
    (folder / "report.json").write_text(json.dumps({"users": rows}, indent=2, ensure_ascii=False) + "\n", "utf-8")
    with (folder / "report.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*(f.name for f in fields(SpeakerResult)), "relative_change"])
        writer.writeheader()
        writer.writerows(rows)
    _write_picture([r for r in results if r.wer_before is not None and r.wer_after is not None], folder / "report.png")


def table(results: Sequence[SpeakerResult]) -> Table:
    """Those who were skipped first, then those with the most to gain."""
    ordered = sorted(results, key=lambda r: (r.problem is None, -(r.wer_before or 0.0)))
    result = Table(title="Word error rate on the training utterances, each left out of training in its turn")
    result.add_column("user", overflow="fold", max_width=30)
    for heading in ("utt.", "seconds", "base WER", "adapted WER", "change", "epochs"):
        result.add_column(heading, justify="right")
    result.add_column("result", overflow="fold")
    for row in ordered[:SHOWN]:
        user = row.user if row.user.isprintable() else repr(row.user)
        change = "" if row.relative_change is None else f"{100 * row.relative_change:+.0f} %"
        rates = ["" if rate is None else f"{100 * rate:.1f} %" for rate in (row.wer_before, row.wer_after)]
        epochs = "" if row.epochs is None else str(row.epochs)
        cells = [str(row.utterances), f"{row.seconds:.0f}", *rates, change, epochs]
        result.add_row(Text(user), *cells, Text(row.problem or row.status), style="red" if row.problem else None)
    if len(ordered) > SHOWN:
        result.add_row(f"... {len(ordered) - SHOWN} more")
    return result


def _write_picture(results: Sequence[SpeakerResult], path: Path) -> None:
    ordered = sorted(results, key=lambda r: r.wer_before or 0.0)
    before = [100 * (r.wer_before or 0.0) for r in ordered]
    after = [100 * (r.wer_after or 0.0) for r in ordered]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(before, "o-", color="#9aa5b1", label="base", markersize=4)
    left.plot(after, "o", color="#2a7f62", label="with adapter", markersize=4)
    left.set(xlabel="users, by the word error rate of the base", ylabel="word error rate, %", ylim=(0, None))
    left.legend(frameon=False)
    right.scatter([r.seconds for r in ordered], [b - a for b, a in zip(before, after)], s=20, color="#2a7f62")
    right.axhline(0, color="#9aa5b1", linewidth=1)
    right.set(xlabel="speech of the user, seconds", ylabel="reduction of the word error rate, points")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{len(results)} users, cross-validated")
    figure.savefig(path, dpi=150)
