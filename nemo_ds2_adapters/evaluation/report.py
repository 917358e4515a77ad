"""A comparison for people and programs: table, JSON, CSV and picture."""

import csv
import json
from dataclasses import asdict, fields
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from nemo_ds2_adapters.evaluation.comparison import Comparison, Estimate, UserResult

MAX_SHOWN = 30  # characters of a user id
SHOWN_USERS = 20  # rows of the table on the screen
NUMBERED_USERS = 5  # in the picture, by their row in table and CSV


def write_json(comparison: Comparison, path: Path) -> None:
    """Everything, rates as fractions: the fields of `Comparison`, and `relative_change` of each user."""
    content = asdict(comparison)
    content["users"] = [_row(user) for user in comparison.users]
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def write_csv(comparison: Comparison, path: Path) -> None:
    """One line per user, those who got worse first; rates as fractions."""
    with path.open("w", encoding="utf-8", newline="") as file:
        names = [field.name for field in fields(UserResult)]
        writer = csv.DictWriter(file, [*names, "relative_change"])
        writer.writeheader()
        writer.writerows(_row(user) for user in comparison.users)


def write_picture(comparison: Comparison, path: Path) -> None:
    """Each user's word error rate with the adapter over that of the base; below the diagonal is better."""
    users = [user for user in comparison.users if user.base_wer is not None and user.adapted_wer is not None]
    figure = Figure(figsize=(7, 6.5), layout="constrained")
    axes = figure.subplots()
    rates = [rate for user in users for rate in (user.base_wer, user.adapted_wer) if rate is not None]
    largest = 105 * max([0.1, *rates])
    axes.plot([0, largest], [0, largest], color="grey", linewidth=1)
    for color, label, chosen in (
        ("tab:blue", "not worse", [user for user in users if not user.got_worse]),
        ("tab:red", "worse", [user for user in users if user.got_worse]),
    ):
        x, y = ([100 * getattr(user, name) for user in chosen] for name in ("base_wer", "adapted_wer"))
        axes.scatter(x, y, s=30, alpha=0.6, color=color, label=f"{label}: {len(chosen)} users", zorder=3)
    for row, user in enumerate(comparison.worse[:NUMBERED_USERS], start=1):  # no font has the letters of all ids
        position = (100 * user.base_wer, 100 * user.adapted_wer)  # type: ignore[operator]
        axes.annotate(f"row {row}", position, xytext=(5, 3), textcoords="offset points", fontsize=8)
    axes.set(
        xlabel="word error rate of the base, %",
        ylabel="word error rate with the user's adapter, %",
        xlim=(0, largest),
        ylim=(0, largest),
        aspect="equal",
        title=f"All users: WER {_percent(comparison.base_wer)} -> {_percent(comparison.adapted_wer)}",
    )
    axes.legend(loc="upper left")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def table(comparison: Comparison) -> Table:
    """The first users, those who got worse first, and the total."""
    result = Table(title="Base and personal adapters; users who got worse come first")
    result.add_column("user", overflow="fold", min_width=20, max_width=MAX_SHOWN)
    for column in ("utt.", "words", "base\nWER, CER %", "adapted\nWER, CER %", "WER\nchange"):
        result.add_column(column, justify="right")
    for user in comparison.users[:SHOWN_USERS]:
        rates = (_rates(user.base_wer, user.base_cer), _rates(user.adapted_wer, user.adapted_cer))
        change = "" if user.relative_change is None else f"{100 * user.relative_change:+.0f} %"
        style = "red" if user.got_worse else None
        cells = [str(user.utterances), str(user.words), *rates, change]
        result.add_row(Text(_shown(user.user)), *cells, style=style)
    if len(comparison.users) > SHOWN_USERS:
        result.add_row(f"... {len(comparison.users) - SHOWN_USERS} more")
    return result


def summary(comparison: Comparison) -> list[str]:
    """The totals, in lines for a person."""
    return [
        f"{len(comparison.users)} users, {comparison.utterances} utterances, {comparison.words} words; "
        f"{len(comparison.worse)} users got worse",
        f"WER {_percent(comparison.base_wer)} -> {_percent(comparison.adapted_wer)}, "
        f"difference {_percent(comparison.wer_difference)} (95 % intervals), p = {comparison.p_value:.4f}",
        f"CER {_percent(comparison.base_cer)} -> {_percent(comparison.adapted_cer)}",
    ]


def _row(user: UserResult) -> dict[str, object]:
    return {**asdict(user), "relative_change": user.relative_change}


def _percent(estimate: Estimate) -> str:
    if estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:.1f} %"
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _rates(*rates: float | None) -> str:
    return "  ".join("   -" if rate is None else f"{100 * rate:4.1f}" for rate in rates)


def _shown(user: str) -> str:
    user = user if user.isprintable() else repr(user)
    return user if len(user) <= MAX_SHOWN else user[: MAX_SHOWN - 3] + "..."
