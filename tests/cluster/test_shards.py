"""Manifests sorted by user: everybody's lines together, whatever their order, and no more in memory than that."""

import json
import random
from pathlib import Path

import pytest

from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.cluster.shards import Shards, speakers_of
from nemo_ds2_adapters.data.speakers import read_speakers
from nemo_ds2_adapters.errors import InputError

KEY = "model.train_ds.manifest_filepath"


def write(path: Path, lines: list[object]) -> str:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")
    return str(path)


@pytest.fixture
def lines(tmp_path: Path) -> list[dict]:
    found = []
    for number in range(40):
        for i in range(3):
            path = tmp_path / f"{number}_{i}.wav"
            path.touch()
            user = f"사용자 {number}\n" if number % 2 else f"user {number} x"
            found.append({"audio_filepath": path.name, "duration": 1.5 + i, "text": "a  b", "speaker": user})
    return found


def sorted_by_user(paths: str, folder: Path) -> Shards:
    folder.mkdir()
    return Shards(paths, KEY, "speaker", folder)


def test_everybody_is_as_read_speakers_finds_them(lines: list[dict], tmp_path: Path) -> None:
    random.Random(0).shuffle(lines)
    paths = f"{write(tmp_path / 'a.json', lines[:70])}, {write(tmp_path / 'b.json', lines[70:])}"
    shards = sorted_by_user(paths, tmp_path / "shards")
    users = list(shards.users())
    assert [user.hashed for user in users] == sorted({user_hash(line["speaker"]) for line in lines})
    assert (shards.lines, shards.seconds, shards.nobodys) == (120, 300.0, [])
    assert {user.seconds for user in users} == {7.5}
    found = {one.user_id: one for one in speakers_of(users, shards.manifests, "speaker")}
    wanted, _ = read_speakers(paths, KEY, "speaker")
    assert len(found) == len(wanted) == 40
    for one in wanted:
        assert [(u.place, u.audio, u.text) for u in found[one.user_id].utterances] == [
            (u.place, u.audio, u.text) for u in one.utterances
        ]
        assert one.problem is found[one.user_id].problem is None


def test_what_is_wrong_is_the_same_peoples_problem(lines: list[dict], tmp_path: Path) -> None:
    lines[0]["audio_filepath"] = "nowhere.wav"
    lines[3]["duration"] = "long"
    lines[6] = {**lines[7]}  # twice
    lines[9]["audio_filepath"] = lines[12]["audio_filepath"]  # two people's
    path = write(tmp_path / "a.json", [*lines, "", "no object", "[]", "{}"])
    shards = sorted_by_user(path, tmp_path / "shards")
    found = {one.user_id: one.problem for one in speakers_of(shards.users(), shards.manifests, "speaker")}
    wanted, nobodys = read_speakers(path, KEY, "speaker")
    assert {one.user_id for one in wanted if one.problem} == {user for user, problem in found.items() if problem}
    assert sum(problem is not None for problem in found.values()) == 5
    assert f"{path}, line 10: this recording is listed for another user too" in found.values()
    assert [line.split(":")[0] for line in shards.nobodys] == [line.place for line in nobodys]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"audio_filepath": "a.wav"}, "line 2: no field 'speaker'; set model.adapter.speaker_key"),
        ({"speaker": 7}, "line 2: speaker=7, expected text"),
        ({"speaker": ""}, "line 2: speaker: the user id is empty"),
    ],
)
def test_a_line_without_user_id(lines: list[dict], tmp_path: Path, line: dict, message: str) -> None:
    path = write(tmp_path / "a.json", [lines[0], line])
    with pytest.raises(InputError, match=message):
        sorted_by_user(path, tmp_path / "shards")


def test_no_manifest_and_no_lines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        sorted_by_user(str(tmp_path / "none.json"), tmp_path / "a")
    with pytest.raises(InputError, match="the manifest has no utterances"):
        sorted_by_user(write(tmp_path / "empty.json", [""]), tmp_path / "b")
    with pytest.raises(InputError, match="line 1: not a JSON object"):
        sorted_by_user(write(tmp_path / "bad.json", ["x"]), tmp_path / "c")
