"""Everybody's result in one Parquet file, written as they come: a million rows are never in memory."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from nemo_ds2_adapters.adaptation.report import SpeakerResult
from nemo_ds2_adapters.evaluation.report import as_row
from nemo_ds2_adapters.formats.atomic import replacement, sweep

ROWS = 1000  # that are written together
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("user", "status")),
        pa.field("utterances", pa.int64()),
        pa.field("seconds", pa.float64()),
        pa.field("kind", pa.string()),
        pa.field("is_expected", pa.bool_()),
        *(pa.field(name, pa.float64()) for name in ("wer_before", "wer_after")),
        pa.field("epochs", pa.int64()),
        *(pa.field(name, pa.string()) for name in ("reason", "problem")),
        pa.field("findings", pa.list_(pa.string())),
        pa.field("relative_change", pa.float64()),
    ]
)


class ResultFile:
    """A Parquet file that appears under its name when the block that it is used in ends."""

    def __init__(self, path: Path) -> None:
        """Args: path: an older one is replaced."""
        self.path = path
        self._rows: list[SpeakerResult] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        sweep(self.path.parent)
        temporary = self._stack.enter_context(replacement(self.path))
        self._writer = self._stack.enter_context(pq.ParquetWriter(temporary, SCHEMA))
        return self

    def __exit__(self, *reason: object) -> None:
        if reason[0] is None:
            self._write()
        self._stack.__exit__(*reason)  # type: ignore[arg-type]

    def add(self, results: Iterable[SpeakerResult]) -> None:
        """Write these too."""
        self._rows += results
        if len(self._rows) >= ROWS:
            self._write()

    def _write(self) -> None:
        rows = [as_row(result) for result in self._rows]
        self._writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
        self._rows = []


def read_results(path: Path) -> Iterator[SpeakerResult]:
    """The results in such a file, one after the other."""
    names = [field.name for field in fields(SpeakerResult)]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS, columns=names):
            for row in batch.to_pylist():
                yield SpeakerResult(**row)
