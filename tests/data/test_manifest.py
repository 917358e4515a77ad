"""Manifests: every mistake is named with its line."""

import json
from pathlib import Path

import pytest

from nemo_ds2_adapters.data.manifest import read_manifest
from nemo_ds2_adapters.data.transcripts import check_vocabulary
from nemo_ds2_adapters.errors import InputError

KEY = "model.train_ds.manifest_filepath"


@pytest.fixture
def entry(tmp_path: Path) -> dict:
    (tmp_path / "a.wav").write_bytes(b"")
    return {"audio_filepath": "a.wav", "duration": 1.5, "text": "yes"}


def write(path: Path, *lines: object) -> str:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")
    return str(path)


def test_reads_utterances_relative_to_the_manifest(tmp_path: Path, entry: dict) -> None:
    manifest = write(tmp_path / "m.json", entry, "", {**entry, "offset": 0.5})
    first, second = read_manifest(manifest, KEY)
    assert first.audio == tmp_path / "a.wav" and first.duration == 1.5 and first.text == "yes"
    assert (first.offset, second.offset) == (0.0, 0.5)


def test_reads_several_manifests(tmp_path: Path, entry: dict) -> None:
    one, two = write(tmp_path / "1.json", entry), write(tmp_path / "2.json", entry, entry)
    assert len(read_manifest(f"{one},{two}", KEY)) == len(read_manifest([one, two], KEY)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio_filepath": None}, "line 2: audio_filepath=None is of the wrong type"),
        ({"audio_filepath": "b.wav"}, "line 2: audio file b.wav does not exist"),
        ({"duration": "1"}, "line 2: duration='1' is of the wrong type"),
        ({"duration": -1}, "line 2: duration=-1, expected seconds above 0"),
        ({"duration": float("nan")}, "line 2: duration=nan, expected seconds above 0"),
        ({"text": 5}, "line 2: text=5 is of the wrong type"),
    ],
)
def test_names_line_and_mistake(tmp_path: Path, entry: dict, change: dict, message: str) -> None:
    manifest = write(tmp_path / "m.json", entry, {**entry, **change})
    with pytest.raises(InputError, match=message):
        read_manifest(manifest, KEY)


@pytest.mark.parametrize("missing", ["audio_filepath", "duration", "text"])
def test_names_missing_fields(tmp_path: Path, entry: dict, missing: str) -> None:
    del entry[missing]
    with pytest.raises(InputError, match=f"line 1: '{missing}' is missing"):
        read_manifest(write(tmp_path / "m.json", entry), KEY)


@pytest.mark.parametrize(
    ("line", "message"), [("{", "not a JSON object"), ("[1]", r"expected a JSON object, got \[1\]")]
)
def test_names_lines_that_are_no_objects(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=f"line 1: {message}"):
        read_manifest(write(tmp_path / "m.json", line), KEY)


def test_names_files_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{KEY}=.*nowhere.json: no such file"):
        read_manifest(str(tmp_path / "nowhere.json"), KEY)
    with pytest.raises(InputError, match="cannot be read as a text file"):
        read_manifest(str(tmp_path), KEY)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="line 1: not UTF-8 text"):
        read_manifest(str(tmp_path / "binary.json"), KEY)
    with pytest.raises(InputError, match="the manifest has no utterances"):
        read_manifest(write(tmp_path / "empty.json"), KEY)
    with pytest.raises(InputError, match=f"{KEY} is not set"):
        read_manifest(None, KEY)


def test_lists_characters_outside_the_vocabulary(tmp_path: Path, entry: dict, make_model) -> None:
    manifest = write(tmp_path / "m.json", entry, {**entry, "text": "Yes, 5"}, {**entry, "text": "é"})
    with pytest.raises(InputError, match="vocabulary: ',' '5' 'Y' 'é'; normalise"):
        check_vocabulary(KEY, read_manifest(manifest, KEY), make_model())
