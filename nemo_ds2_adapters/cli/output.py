"""What a person sees, and what a program reads."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.text import json_text, printable

FINGERPRINT_DIGITS = 8  # of 64: enough to tell a person's bases apart

# How a column looks to a person; a program gets the value itself.
LOOKS: dict[str, Callable[[Any], str]] = {
    "stored": lambda time: f"{datetime.fromisoformat(time).astimezone():%Y-%m-%d %H:%M}",
    "module": lambda prefix: prefix or "(default)",
    "type": lambda path: path.rpartition(".")[2],
    "parameters": lambda number: f"{number:,}",
    "bytes": decimal,
    "base": lambda fingerprint: fingerprint[:FINGERPRINT_DIGITS],
    "enabled": lambda enabled: "yes" if enabled else "no",
}
PIPE_WIDTH = 10_000  # characters: a file or another program gets every row in one line
NUMBERS = ("version", "parameters", "bytes")


def say(message: str, err: bool = False) -> None:
    """Print a line, on the error stream if `err`; what came from data and does not print is escaped."""
    print(printable(message), file=sys.stderr if err else sys.stdout)


def show_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json_text(value, indent=2))


def show_rows(rows: Sequence[dict[str, Any]], title: str) -> None:
    """Print rows with the same columns as a table."""
    table = Table(title=printable(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in rows[0] if rows else ():
        justify: JustifyMethod = "right" if column in NUMBERS else "left"
        table.add_column(column.replace("_", " "), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(printable(LOOKS.get(column, str)(value)) for column, value in row.items()))
    _print(table if rows else printable(f"{title}: no adapters"))


def show_tree(value: dict[str, Any]) -> None:
    """Print nested values, one line for each, by their dotted keys."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for key, leaf in _leaves(value):
        table.add_row(printable(key), "-" if leaf in ("", None) else printable(str(leaf)))
    _print(table)


def quiet(level: str) -> None:
    """Keep NeMo, Lightning and Python warnings below `level`, a logging level's name (InputError), off the screen."""
    number = logging.getLevelName(level)
    if not isinstance(number, int):
        raise InputError(f"log_level={level}: expected DEBUG, INFO, WARNING or ERROR")
    logging.disable(number - 1)  # for all loggers: NeMo's experiment manager sets the levels of some anew
    if number > logging.INFO:
        warnings.filterwarnings("ignore")


@contextmanager
def progress(what: str) -> Iterator[Callable[[float], None]]:
    """A progress bar on the error stream: yields what to call with the share that is done, 0 to 1."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(printable(what), total=1.0)
        yield lambda share: bar.update(task, completed=share)


@contextmanager
def busy(what: str) -> Iterator[None]:
    """A sign on the error stream, for work of unknown length."""
    console = Console(stderr=True, markup=False)
    with console.status(printable(what)):
        yield


def _print(what: Table | str) -> None:
    console = Console(markup=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    console.print(what)


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{key}.{i}")
    else:
        yield key, value
