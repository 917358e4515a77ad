"""Whose utterances the lines of a manifest are, and whose problem a wrong one is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_ds2_adapters.data.speakers import Speaker, check_speakers, read_speakers
from nemo_ds2_adapters.errors import InputError
from tests.data.test_manifest import WRONG_LINES

KEY = "model.train_ds.manifest_filepath"


@pytest.fixture
def lines(tmp_path: Path) -> list[dict]:
    """Two recordings of each of two people, taking turns."""
    random = np.random.default_rng(0)
    found = []
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * random.standard_normal(16000), 16000)
        found.append({"audio_filepath": f"{i}.wav", "duration": 1.0, "text": "yes", "speaker": ("ann", "bob")[i % 2]})
    return found


def read(folder: Path, *lines: object) -> tuple[dict[str, Speaker], list[str]]:
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    (folder / "m.json").write_text(text, "utf-8")
    speakers, nobodys = read_speakers(str(folder / "m.json"), KEY, "speaker")
    return {speaker.user_id: speaker for speaker in speakers}, [str(line) for line in nobodys]


def test_lines_are_sorted_by_speaker(tmp_path: Path, lines: list[dict]) -> None:
    speakers, nobodys = read(tmp_path, *lines)
    assert {user: [u.audio.name for u in speaker.utterances] for user, speaker in speakers.items()} == {
        "ann": ["0.wav", "2.wav"],
        "bob": ["1.wav", "3.wav"],
    }
    assert nobodys == [] and speakers["ann"].seconds == 2.0 and speakers["ann"].problem is None


@pytest.mark.parametrize("line", WRONG_LINES)
def test_a_wrong_line_is_its_speakers_problem(tmp_path: Path, lines: list[dict], line: str) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(16000) / 10, 16000)
    line = line[:-1] + ', "speaker": "eve"}' if line.endswith("}") and line != "{} {}" else line
    speakers, nobodys = read(tmp_path, *lines, line)
    assert [speakers[user].problem for user in ("ann", "bob")] == [None, None]
    problems = nobodys or [speakers["eve"].problem]
    assert len(problems) == 1 and "m.json, line 5: " in str(problems[0])
    assert set(speakers) == ({"ann", "bob"} if nobodys else {"ann", "bob", "eve"})


def test_without_a_speaker_there_is_nothing_to_do(tmp_path: Path, lines: list[dict]) -> None:
    with pytest.raises(InputError, match=r"m.json, line 1: not a JSON object"):
        read(tmp_path, "no JSON", "{")
    with pytest.raises(InputError, match=r"m.json, line 2: no field 'speaker'"):
        read(tmp_path, lines[0], {**lines[1], "speaker": None})
    with pytest.raises(InputError, match=r"m.json, line 2: speaker=\[1\], expected text"):
        read(tmp_path, lines[0], {**lines[1], "speaker": [1]})


def test_one_recording_of_two_people(tmp_path: Path, lines: list[dict]) -> None:
    (tmp_path / "link.wav").symlink_to(tmp_path / "0.wav")
    extra = [{**lines[0], "speaker": user, "text": "no", "audio_filepath": "link.wav"} for user in ("eve", "joe")]
    more = [{**lines[0], "speaker": user, "offset": 0.5} for user in ("eve", "joe")]
    speakers, _ = read(tmp_path, *lines, *extra, extra[0] | {"speaker": "bob", "offset": 0.25}, *more[:1])
    assert speakers["bob"].problem is None
    for user, other in (("ann", "'eve'"), ("eve", "'ann'"), ("joe", "'ann'")):
        assert "is there twice, as" in str(speakers[user].problem) or "1 utterance" in str(speakers[user].problem)
        if user != "joe":
            assert other in str(speakers[user].problem)


@pytest.mark.parametrize("owners", [("ann", "ann"), ("ann", "bob")])
def test_copies_are_found_by_their_sound(tmp_path: Path, lines: list[dict], make_model, owners) -> None:
    shutil.copy(tmp_path / "0.wav", tmp_path / "copy.wav")
    lines.append({**lines[0], "audio_filepath": "copy.wav", "speaker": owners[1]})
    lines += [{**line, "speaker": "eve", "offset": 0.25, "duration": 0.5} for line in lines[:2]]
    speakers, _ = read(tmp_path, *lines)
    assert not any(speaker.problem for speaker in speakers.values())
    check_speakers(speakers.values(), KEY, make_model())
    assert {user for user, speaker in speakers.items() if speaker.problem} == set(owners)
    assert "line 1: 0.wav is there twice, as" in str(speakers["ann"].problem)
    assert "copy.wav" in str(speakers["ann"].problem)


def test_what_the_model_cannot_use_is_one_speakers_problem(tmp_path: Path, lines: list[dict], make_model) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    samples = np.full(16000, 0.1)
    samples[5] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16000, "FLOAT")
    soundfile.write(tmp_path / "one.wav", [0.5], 16000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    extra = []
    for user, name, change in (
        ("no audio", "text.wav", {}),
        ("nan", "nan.wav", {}),
        ("letters", "2.wav", {"text": "Ä", "offset": 0.5}),
        ("short", "one.wav", {}),
        ("silent", "silent.wav", {}),
        ("long", "3.wav", {"duration": 100, "offset": 0.1}),
        ("mute", "3.wav", {"text": " ", "offset": 0.2}),
    ):
        extra += [{**lines[0], "audio_filepath": name, "speaker": user, **change}]
        extra += [{**lines[0], "audio_filepath": "0.wav", "offset": 0.01 * len(extra), "speaker": user}]
    speakers, _ = read(tmp_path, *lines, *extra)
    check_speakers(speakers.values(), KEY, make_model())
    problems = {user: speaker.problem for user, speaker in speakers.items() if speaker.problem}
    assert set(problems) == {"no audio", "nan", "letters"}
    assert "cannot be read as audio" in str(problems["no audio"]) and "not finite" in str(problems["nan"])
    assert "'Ä'" in str(problems["letters"])
    assert any("silent: 1 of 2" in line for line in speakers["silent"].findings)
    assert any("shorter than the manifest says" in line for line in speakers["long"].findings)
    assert any("without a transcript: 1 of 2" in line for line in speakers["mute"].findings)
    assert any("shorter than the manifest says" in line for line in speakers["short"].findings)
    assert speakers["ann"].findings == []


def test_another_hash_other_data(tmp_path: Path, lines: list[dict]) -> None:
    hashes = {read(tmp_path, *lines)[0]["ann"].data_hash()}
    for change in ({"text": "no"}, {"offset": 0.1}, {"duration": 0.9}):
        hashes.add(read(tmp_path, {**lines[0], **change}, *lines[1:])[0]["ann"].data_hash())
    assert len(hashes) == 4 and read(tmp_path, *lines)[0]["ann"].data_hash() in hashes
