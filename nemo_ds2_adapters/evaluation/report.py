"""Results for people and programs: table, JSON, CSV and picture, alike in every command."""

import csv
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.evaluation.comparison import Comparison, Estimate
from nemo_ds2_adapters.formats.atomic import sweep, write_atomically
from nemo_ds2_adapters.text import json_text, printable

WIDTH = 100  # characters of a screen
SHOWN_ROWS = 30  # of a table on the screen
NAME_WIDTH = 30  # characters of a user id there
FORMULA = re.compile(r"\s*[=+\-@]")  # how text begins that a spreadsheet takes for one
NUMBER = re.compile(r"-|[+-]?[\d.]+(e[+-]?\d+)?")  # begins so too, and is none
NAMED_USERS = 12  # with more, a picture has no room for their names
COMPARISON_ENDINGS = (".json", ".csv", ".png")
GREY, GREEN, RED = "#9aa5b1", "#2a7f62", "#c0392b"


def as_row(result: Any) -> dict[str, Any]:
    """Columns of a dataclass's value: its fields, then its properties."""
    properties = [name for name, value in vars(type(result)).items() if isinstance(value, property)]
    return {**asdict(result), **{name: getattr(result, name) for name in properties}}


def write_json(content: Any, path: str | os.PathLike[str]) -> None:
    """One JSON document. Raises InputError, AdapterFileError: it cannot be written. So do all writers here."""
    _save((json_text(content, indent=2) + "\n").encode(), path)


def write_lines(rows: Iterable[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """A JSON object per line, as in a manifest."""
    _save("".join(f"{json_text(row)}\n" for row in rows).encode(), path)


def write_csv(rows: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """A line per row; the first row has the columns."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    _save(file.getvalue().encode(), path)


def write_picture(
    users: Sequence[tuple[str, float | None, float | None]], path: str | os.PathLike[str], title: str
) -> None:
    """A PNG of everybody's word error rate with and without the adapter: name, rate of the base, rate with it, as
    fractions."""
    rates = [(name, 100 * before, 100 * after) for name, before, after in users if None not in (before, after)]  # type: ignore[operator]
    rates.sort(key=lambda rate: rate[1])
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for i, (_, before, after) in enumerate(rates):
        axes.plot([i, i], [before, after], color=GREY, linewidth=1, zorder=1)
    axes.scatter(range(len(rates)), [before for _, before, _ in rates], s=24, color=GREY, label="base")
    for colour, label, is_worse in ((GREEN, "with adapter", False), (RED, "with adapter, worse", True)):
        chosen = [(i, after) for i, (_, before, after) in enumerate(rates) if (after > before) == is_worse]
        if chosen:
            x, y = zip(*chosen)
            axes.scatter(x, y, s=24, color=colour, label=f"{label} ({len(chosen)})", zorder=3)
    axes.set(xlabel="users, by the word error rate of the base", ylabel="word error rate, %", title=title)
    names = [name.replace("$", r"\$")[:NAME_WIDTH] for name, *_ in rates]
    are_shown = len(rates) <= NAMED_USERS and all(name.isascii() and name.isprintable() for name in names)
    axes.set_xticks(range(len(rates) if are_shown else 0), names if are_shown else None)
    axes.set_xlim(-0.5, max(len(rates), 1) - 0.5)
    axes.set_ylim(0, None)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    file = io.BytesIO()
    figure.savefig(file, dpi=150)
    _save(file.getvalue(), path)


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], red: Iterable[int] = ()) -> Table:
    """The first rows, for a screen: text on the left of a column, numbers on the right; rows of these numbers in
    `red`."""
    rows, red = list(rows), set(red)
    result = Table(title=title)
    result.add_column(headings[0], overflow="fold", max_width=NAME_WIDTH)
    for i, heading in enumerate(headings[1:], start=1):
        is_text = any(row[i][:1].isalpha() for row in rows)
        result.add_column(heading, justify="left" if is_text else "right", overflow="fold")
    for i, row in enumerate(rows[:SHOWN_ROWS]):
        result.add_row(*(Text(printable(cell)) for cell in row), style="red" if i in red else None)
    if len(rows) > SHOWN_ROWS:
        result.add_row(f"... {len(rows) - SHOWN_ROWS} more")
    return result


def percent(rate: float | None, sign: str = "", digits: int = 1) -> str:
    """`12.3 %` of 0.123; nothing of None. `sign="+"` writes one before gains too."""
    return "" if rate is None else f"{100 * rate:{sign}.{digits}f} %"


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Beside `path`, with its name: `.json` with everything, rates as fractions, `.csv` and `.png` per user."""
    users = [as_row(user) for user in comparison.users]
    as_json, as_csv, as_png = map(path.with_suffix, COMPARISON_ENDINGS)
    write_json({**asdict(comparison), "users": users}, as_json)
    write_csv(users, as_csv)
    rates = [(user.user, user.base_wer, user.adapted_wer) for user in comparison.users]
    title = f"All users: WER {_shown(comparison.base_wer)} -> {_shown(comparison.adapted_wer)}"
    write_picture(rates, as_png, title)


def comparison_table(comparison: Comparison) -> Table:
    """The first users, those who got worse first."""
    rows = [
        (
            user.user if len(user.user) <= 2 * NAME_WIDTH else f"{user.user[: 2 * NAME_WIDTH]}...",
            str(user.utterances),
            str(user.words),
            *map(percent, (user.base_wer, user.base_cer, user.adapted_wer, user.adapted_cer)),
            percent(user.relative_change, "+", 0),
        )
        for user in comparison.users
    ]
    headings = ("user", "utt.", "words", "base\nWER", "\nCER", "adapted\nWER", "\nCER", "WER\nchange")
    title = "Base and personal adapters; users who got worse come first"
    return table(title, headings, rows, [i for i, user in enumerate(comparison.users) if user.got_worse])


def summary(comparison: Comparison) -> list[str]:
    """The totals, in lines for a person."""
    return [
        f"{len(comparison.users)} users, {comparison.utterances} utterances, {comparison.words} words; "
        f"{len(comparison.worse)} users got worse",
        f"WER {_shown(comparison.base_wer)} -> {_shown(comparison.adapted_wer)}, "
        f"difference {_shown(comparison.wer_difference)} (95 % intervals), p = {comparison.p_value:.4f}",
        f"CER {_shown(comparison.base_cer)} -> {_shown(comparison.adapted_cer)}",
    ]


def _save(content: bytes, path: str | os.PathLike[str]) -> None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    sweep(Path(path).parent)
    write_atomically(path, content)


def _cell(value: Any) -> Any:
    """Text that no spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return value
    value = printable(value)
    return f"'{value}" if FORMULA.match(value) and not NUMBER.fullmatch(value) else value


def _shown(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return percent(estimate.value) or "-"
    return f"{percent(estimate.value)} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
