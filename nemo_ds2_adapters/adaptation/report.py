"""What trainings reached: of one adapter, and of a run over many speakers; for people and programs."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.table import Table

from nemo_ds2_adapters.adaptation.voice_prior.choice import WHAT, Kind
from nemo_ds2_adapters.adapters.chosen import ChosenAdapter
from nemo_ds2_adapters.evaluation import report
from nemo_ds2_adapters.evaluation.report import as_row, percent, write_csv, write_json, write_picture

SECONDS = (0, 5, 15, 45, 120, math.inf)  # of speech, between which the report tells people apart
REPORTS = ("report.json", "report.csv", "report.png")


@dataclass
class Reached:
    """What training has come to."""

    wer_before: float | None = None
    wer_after: float | None = None
    epochs: int = 0  # 0: what the adapter was compared with is kept
    history: list[dict[str, float]] = field(default_factory=list)
    is_cross_validated: bool = False
    was_finished: bool = False
    reason: str = ""  # of what is kept, where a voice prior has decided it


@dataclass(frozen=True)
class Adaptation:
    """One adapter. Word error rates are fractions: of the validation data, or without any of cross-validation."""

    adapter: ChosenAdapter
    wer_before: float | None  # of what the adapter is compared with; None if nothing was compared
    wer_after: float | None  # of what was kept
    epochs: int  # trained before the weights that were kept; 0: none was better than the start, which was kept
    history: list[dict[str, float]]  # of every epoch: `train_loss`, `seconds`, and `val_wer` where it was validated
    seconds: float
    model_path: Path  # the adapted `.nemo`
    path: Path | None = None  # the file of the adapter alone
    is_cross_validated: bool = False  # the word error rates are those of cross-validation
    is_kept: bool = True  # False: the base was better, and this kind of adapter cannot be the base, so there is none
    was_finished: bool = False  # an earlier run had trained it; this one found its result
    reason: str = ""  # of what is kept, where a voice prior has decided it; the rates are then what is to be expected

    def lines(self) -> list[str]:
        """For a person."""
        said = f"adapter {self.adapter.shown}: {self.epochs} epochs"
        if not self.is_kept:
            said = f"adapter {self.adapter.shown}: no epoch was better than the base: there is no adapter"
        elif self.epochs == 0 and not self.reason:
            said = f"adapter {self.adapter.shown}: no epoch was better than the start, which was kept"
        if self.wer_before is not None and self.wer_after is not None:
            kind = "cross-validated" if self.is_cross_validated else "expected" if self.reason else "validation"
            said += f", {kind} WER {100 * self.wer_before:.1f} % -> {100 * self.wer_after:.1f} %"
        said += ", trained by an earlier run" if self.was_finished else f", {self.seconds:.0f} s"
        lines = [said, *([f"  {self.reason}"] if self.reason else []), f"  model    {self.model_path}"]
        if self.path:
            lines.append(f"  adapter  {self.path} ({self.path.stat().st_size / 1000:.0f} kB)")
        return lines


@dataclass(frozen=True)
class SpeakerResult:
    """One speaker. Word error rates are fractions, of the training recordings.

    Each is scored out of fold; where a prior has decided, what its record lets expect is in place of the second rate.
    """

    user: str
    status: (
        str  # `trained`, `updated`, `prior kept`, `base kept`, `base kept: no adapter`, `finished before`, `skipped`
    )
    utterances: int
    seconds: float  # of speech
    kind: Kind | None = None  # of what was kept
    is_expected: bool | None = None  # `wer_after`, by the record of a prior
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
    write_json({"users": rows, "by_seconds_of_speech": by_seconds(results)}, as_json)
    write_csv([{**row, "findings": "; ".join(row["findings"])} for row in rows], as_csv)
    rates = [(result.user, result.wer_before, result.wer_after) for result in results]
    write_picture(rates, as_png, _whence(results))


def by_seconds(results: Iterable[SpeakerResult]) -> list[dict[str, Any]]:
    """What became of people, by how much they have spoken: how many have what, and their mean word error rates."""
    kinds, sums = Counter[tuple[int, str | None]](), Counter[tuple[int, str]]()
    for one in results:
        if one.wer_before is not None and one.wer_after is not None:
            row = bisect_right(SECONDS, one.seconds) - 1
            kinds[row, one.kind] += 1
            sums.update({(row, "users"): 1, (row, "before"): one.wer_before, (row, "after"): one.wer_after})
    rows = []
    for row, (low, high) in enumerate(pairwise(SECONDS)):
        if users := sums[row, "users"]:
            rows.append(
                {
                    "from_seconds": low,
                    "to_seconds": high if high < math.inf else None,
                    "users": users,
                    **{kind: kinds[row, kind] for kind in WHAT},
                    "wer_before": sums[row, "before"] / users,
                    "wer_after": sums[row, "after"] / users,
                }
            )
    return rows


def outcomes(results: Iterable[SpeakerResult]) -> list[str]:
    """The same in lines for a person."""
    lines = []
    for row in by_seconds(results):
        kinds = ", ".join(f"{row[kind]} {what}" for kind, what in WHAT.items() if row[kind])
        upper = f" to {row['to_seconds']}" if row["to_seconds"] else " and more"
        lines.append(
            f"{row['from_seconds']}{upper} s of speech: {row['users']} users, WER {percent(row['wer_before'])} -> "
            f"{percent(row['wer_after'])}: {kinds}"
        )
    return lines


def _whence(results: Sequence[SpeakerResult]) -> str:
    if any(one.is_expected for one in results):
        return "Word error rate: the base's on people's recordings, and what is expected by the record of a prior"
    return "Word error rate on the training recordings, each left out of training in its turn"


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
    return report.table(_whence(results), headings, rows, [i for i, row in enumerate(ordered) if row.problem])
