"""Writing files: never over what is read."""

import os
from pathlib import Path

import pytest

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.atomic import check_not_input


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source.json"
    source.write_text("{}")
    (tmp_path / "link.json").symlink_to(source)
    (tmp_path / "a").mkdir()
    os.link(source, tmp_path / "hard.json")
    for output in (
        source,
        str(source),
        tmp_path / "link.json",
        tmp_path / "hard.json",
        tmp_path / "." / "source.json",
    ):
        with pytest.raises(InputError, match="would overwrite test_ds, which is read"):
            check_not_input(output, {"nothing": None, "test_ds": source})
    assert source.read_text() == "{}"


def test_a_folder_that_is_read_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "store" / "ab").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "store")
    for output in ("store", "store/ab", "store/ab/new.json", "link/ab/new.json"):
        with pytest.raises(InputError, match="would overwrite adapter_store"):
            check_not_input(tmp_path / output, {"adapter_store": tmp_path / "store"})
    check_not_input(tmp_path / "stores", {"adapter_store": tmp_path / "store"})


def test_other_outputs_pass(tmp_path: Path) -> None:
    (tmp_path / "source.json").write_text("{}")
    (tmp_path / "other.json").write_text("{}")
    for output in (
        tmp_path / "other.json",
        tmp_path / "new.json",
        tmp_path / "no folder" / "new.json",
        "x" * 5000,
        "\0",
    ):
        check_not_input(output, {"test_ds": tmp_path / "source.json", "none": None, "gone": tmp_path / "gone.json"})
