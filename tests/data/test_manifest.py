"""Manifests: every mistake is named with its line."""

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemo_ds2_adapters.data.manifest import BadLine, Utterance, read_lines, read_manifest
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


WRONG_LINES = {  # what a line of a manifest says -> what is said of it
    '{"audio_filepath": "a.wav", "text": "yes", "duration": Infinity}': "duration=inf, expected seconds above 0",
    '{"audio_filepath": "a.wav", "text": "yes", "duration": 0}': "duration=0, expected seconds above 0",
    '{"audio_filepath": "a.wav", "text": "yes", "duration": true}': "duration=True is of the wrong type",
    '{"audio_filepath": "a.wav", "text": "yes", "duration": null}': "duration=None is of the wrong type",
    '{"audio_filepath": "a.wav", "text": "yes", "duration": ' + "9" * 400 + "}": r"duration=9+\.\.\.9+, expected",
    '{"audio_filepath": "a.wav", "text": "yes", "duration": ' + "9" * 5000 + "}": "a number is too long",
    '{"audio_filepath": "a.wav", "text": "yes", "duration": 1, "offset": "abc"}': "offset='abc' is of the wrong type",
    '{"audio_filepath": "a.wav", "text": "yes", "duration": 1, "offset": [1]}': r"offset=\[1\] is of the wrong type",
    '{"audio_filepath": "a.wav", "text": "yes", "duration": 1, "offset": 1e30}': "offset=1e.30, expected seconds",
    '{"audio_filepath": "a.wav", "text": "yes", "duration": 1, "offset": -1}': "offset=-1, expected seconds from 0",
    '{"audio_filepath": "a.wav", "text": "yes", "duration": 1, "offset": NaN}': "offset=nan, expected seconds from 0",
    '{"audio_filepath": "' + "a" * 5000 + '", "text": "yes", "duration": 1}': "audio file a+ does not exist",
    '{"audio_filepath": "a\\u0000.wav", "text": "yes", "duration": 1}': "does not exist",
    '{"audio_filepath": "", "text": "yes", "duration": 1}': "audio file  does not exist",
    '{"audio_filepath": ".", "text": "yes", "duration": 1}': "audio file . does not exist",
    '{"audio_filepath": "a.wav", "text": "\\ud800", "duration": 1}': "not UTF-8 text",
    "[" * 100_000: "nested too deeply",
    '{"audio_filepath": "a.wav", "text": ' + "[" * 50_000 + "]" * 50_000 + "}": "nested too deeply",
    '"audio"': 'expected a JSON object, got "audio"',
    "null": "expected a JSON object, got null",
    "{} {}": "not a JSON object",
}


@pytest.mark.parametrize("line", WRONG_LINES)
def test_a_wrong_line_is_nobody_elses_problem(tmp_path: Path, entry: dict, line: str) -> None:
    manifest = write(tmp_path / "m.json", entry, line, entry)
    before, wrong, after = read_lines(manifest, KEY)
    assert isinstance(wrong, BadLine) and re.search(f"m.json, line 2: .*{WRONG_LINES[line]}", str(wrong))
    assert isinstance(before, Utterance) and isinstance(after, Utterance) and after.place.endswith("line 3")
    assert len(str(wrong)) < 1000
    with pytest.raises(InputError, match="line 2"):
        read_manifest(manifest, KEY)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_lines_end_at_line_feeds_alone(tmp_path: Path, entry: dict, separator: str) -> None:
    line = json.dumps({**entry, "text": f"a{separator}b"}, ensure_ascii=False)
    (tmp_path / "m.json").write_bytes(f"{line}\r\n\r{line}".encode())
    assert [utterance.text for utterance in read_manifest(tmp_path / "m.json", KEY)] == [f"a{separator}b"] * 2


def test_what_is_to_be_transcribed_needs_a_recording_alone(tmp_path: Path, entry: dict) -> None:
    path = write(tmp_path / "m.json", {"audio_filepath": "a.wav"}, {**entry, "text": None, "duration": None, "x": [1]})
    for utterance in read_lines(path, KEY, transcribed=False):
        assert utterance.audio == tmp_path / "a.wav" and utterance.duration == math.inf and utterance.text == ""
    assert utterance.fields["x"] == [1]
    assert all(isinstance(line, BadLine) for line in read_lines(path, KEY))


def test_a_path_with_a_comma(tmp_path: Path, entry: dict) -> None:
    write(tmp_path / "a,b.json", entry)
    assert len(read_manifest(tmp_path / "a,b.json", KEY)) == 1


LINES = st.one_of(
    st.binary(max_size=80),
    st.dictionaries(
        st.sampled_from(["audio_filepath", "text", "duration", "offset", "speaker"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("a.wav"),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
            max_leaves=5,
        ),
    ).map(lambda fields: json.dumps(fields).encode()),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES, max_size=4), transcribed=st.booleans())
def test_any_bytes_give_utterances_or_one_error(tmp_path: Path, lines: list[bytes], transcribed: bool) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "m.json").write_bytes(b"\n".join(lines))
    try:
        found = read_lines(tmp_path / "m.json", KEY, transcribed)
    except InputError as error:
        assert "the manifest has no utterances" in str(error) and not b"".join(lines).strip()
        return
    for line in found:
        if isinstance(line, Utterance):
            assert line.audio.is_file() and line.duration > 0 and 0 <= line.offset < math.inf
        else:
            assert str(line).startswith(f"{tmp_path / 'm.json'}, line ")
    assert len(found) == sum(bool(line.strip()) for line in b"\n".join(lines).split(b"\n"))
