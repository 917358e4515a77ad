"""Results in Parquet."""

from pathlib import Path

import pytest

from nemo_ds2_adapters.adaptation.report import SpeakerResult, by_seconds

pytest.importorskip("pyarrow", reason="the extra [ray] is not installed")

from nemo_ds2_adapters.cluster.results import ROWS, SCHEMA, ResultFile, read_results
from nemo_ds2_adapters.evaluation.report import as_row

ADAPTED = SpeakerResult("홍길동", "trained", 10, 31.5, "adapted", True, 0.5, 0.25, 2, "because", findings=["silent"])
SKIPPED = SpeakerResult("b", "skipped", 1, 0.0, problem="1 utterance")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert set(SCHEMA.names) == set(as_row(ADAPTED))
    many = [ADAPTED, SKIPPED] * ROWS
    with ResultFile(tmp_path / "report.parquet") as file:
        for result in many:
            file.add([result])
            assert not file.path.exists()
    found = list(read_results(file.path))
    assert found == many
    assert by_seconds(found) == by_seconds(many)
    assert by_seconds(found)[0]["users"] == ROWS


def test_an_interrupted_run_leaves_the_old_one(tmp_path: Path) -> None:
    with ResultFile(tmp_path / "report.parquet") as file:
        file.add([SKIPPED])
    with pytest.raises(KeyboardInterrupt), ResultFile(file.path) as other:
        other.add([ADAPTED] * ROWS)
        raise KeyboardInterrupt
    assert list(read_results(file.path)) == [SKIPPED]
    assert [*tmp_path.iterdir()] == [file.path]
