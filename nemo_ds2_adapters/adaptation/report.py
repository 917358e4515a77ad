"""What a run over many speakers reached: for people and programs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from nemo_ds2_adapters.evaluation import report
from nemo_ds2_adapters.evaluation.report import as_row, percent, write_csv, write_json, write_picture

REPORTS = ("report.json", "report.csv", "report.png")


@dataclass(frozen=True)
class SpeakerResult:
    """One speaker. Word error rates are fractions, over the training recordings, each scored out of fold."""

    user: str
    status: (
        str  # `trained`, `updated`, `prior kept`, `base kept`, `base kept: no adapter`, `finished before`, `skipped`
    )
    utterances: int
    seconds: float  # of speech
    wer_before: float | None = None
    wer_after: float | None = None
    epochs: int | None = None
    reason: str | None = None  # for what was kept
    problem: str | None = None  # why it was skipped
    findings: list[str] = field(default_factory=list)  # of the recordings

    @property
    def relative_change(self) -> float | None:
        """Of the word error rate, as a fraction: -0.5 is half of the errors gone."""
        if not self.wer_before or self.wer_after is None:
            return None
        return self.wer_after / self.wer_before - 1


def write_reports(results: Sequence[SpeakerResult], folder: Path) -> None:
    """`report.json`, `report.csv` and `report.png`.

    Raises:
        InputError, AdapterFileError: they cannot be written.
    """
    as_json, as_csv, as_png = (folder / name for name in REPORTS)
    rows = [as_row(result) for result in results]
    write_json({"users": rows}, as_json)
    write_csv([{**row, "findings": "; ".join(row["findings"])} for row in rows], as_csv)
    rates = [(result.user, result.wer_before, result.wer_after) for result in results]
    write_picture(rates, as_png, "Cross-validated on the training recordings")


def table(results: Sequence[SpeakerResult]) -> Table:
    """Those who were skipped first, then those with the most to gain."""
    ordered = sorted(results, key=lambda r: (r.problem is None, -(r.wer_before or 0.0)))
    rows = [
        (
            row.user,
            str(row.utterances),
            f"{row.seconds:.0f}",
            *map(percent, (row.wer_before, row.wer_after)),
            percent(row.relative_change, "+", 0),
            "" if row.epochs is None else str(row.epochs),
            row.problem or row.status,
        )
        for row in ordered
    ]
    headings = ("user", "utt.", "seconds", "base WER", "adapted WER", "change", "epochs", "result")
    title = "Word error rate on the training recordings, each left out of training in its turn"
    return report.table(title, headings, rows, [i for i, row in enumerate(ordered) if row.problem])
