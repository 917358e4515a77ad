"""Output units of another toolkit: read, put in NeMo's order (the blank last), written as NeMo's data have them."""

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_ds2_adapters.errors import InputError

BLANK_NAMES = ("<blank>", "_")
NO_SPACE = "|"  # in place of a space, in KoSpeech's graphemes


@dataclass(frozen=True)
class OutputUnits:
    """Output units without the blank, and which row of the output layer each of NeMo's classes is."""

    vocabulary: list[str]
    order: list[int]


def read_labels(labels: Sequence[str] | str | os.PathLike[str]) -> list[str]:
    """Labels as they are, of a `.json` list (deepspeech.pytorch), or of a `.csv` with a head line (KoSpeech)."""
    if isinstance(labels, str | os.PathLike):
        path = Path(labels)
        try:
            labels = _from_csv(path) if path.suffix == ".csv" else json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise InputError(f"labels={path}: cannot be read as .json list or .csv table ({error})") from error
    if not isinstance(labels, Sequence) or not labels or not all(isinstance(x, str) and x for x in labels):
        raise InputError(f"labels: expected a list of texts, got {str(labels)[:60]}")
    return list(labels)


def output_units(
    labels: Sequence[str], num_classes: int, blank_index: int | None, default_blank: int, keep_case: bool
) -> OutputUnits:
    """Output units in NeMo's order.

    Args:
        labels: the original's, with or without the blank.
        num_classes: rows of the output layer.
        blank_index: row of the blank; None looks for a label called `<blank>` or `_`.
        default_blank: row of the blank if no label is called so.
        keep_case: leave labels that are upper case throughout as they are; otherwise they become lower case.
    """
    if len(labels) not in (num_classes, num_classes - 1):
        raise InputError(
            f"labels: {len(labels)} of them, but the output layer has {num_classes} classes; expected "
            f"{num_classes} with the blank or {num_classes - 1} without it"
        )
    if blank_index is not None and not 0 <= blank_index < num_classes:
        raise InputError(f"blank_index={blank_index}: expected 0 to {num_classes - 1}")
    blank = blank_index
    if blank is None:
        named = [name for name in BLANK_NAMES if name in labels and len(labels) == num_classes]
        blank = labels.index(named[0]) if named else default_blank
    order = [row for row in range(num_classes) if row != blank]
    units = [labels[row] for row in order] if len(labels) == num_classes else list(labels)
    if " " not in units:
        units = [" " if unit == NO_SPACE else unit for unit in units]
    if not keep_case and any(unit.isupper() for unit in units) and not any(unit.islower() for unit in units):
        units = [unit.lower() for unit in units]
    repeated = sorted({unit for unit in units if units.count(unit) > 1}) if len(set(units)) < len(units) else []
    if repeated:
        raise InputError(f"labels: {', '.join(map(repr, repeated))} occurs more than once")
    return OutputUnits(units, [*order, blank])


def unicode_parser(vocabulary: Sequence[str]) -> str | None:
    """NeMo's name of the parser that brings Korean transcripts to the form of the output units, if they are Korean."""
    characters = set("".join(vocabulary))
    if any("\u1100" <= c <= "\u11ff" for c in characters):
        return "nfd"
    return "nfc" if any("가" <= c <= "힣" for c in characters) else None


def _from_csv(path: Path) -> list[str]:
    """Second column of a table `id,char,freq`, and the blank, which KoSpeech adds at its end."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if row][1:]
    if [row[0] for row in rows] != [str(i) for i in range(len(rows))] or any(len(row) < 2 for row in rows):
        raise ValueError("the first column does not count from 0")
    units = [row[1] for row in rows]
    return units if "<blank>" in units else [*units, "<blank>"]
