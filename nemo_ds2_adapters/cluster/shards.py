"""The lines of manifests of any length, sorted by user in one pass, in files: memory does not grow with them."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.data.manifest import MOST_SECONDS, manifest_paths, parse_fields, parse_line, raw_lines
from nemo_ds2_adapters.data.speakers import Speaker, sort_by_speaker, user_id_of
from nemo_ds2_adapters.errors import InputError

SHARDS = 256  # by the first two digits of the user's hash
RECORDINGS = 64  # files of hashes of recordings and users
BUFFER = 1 << 16  # bytes, of each file
PAIR = np.dtype([("recording", "<u8"), ("user", "<u8")])
PACKED = Struct("<QQ")
MOST_TOLD = 100  # lines that are nobody's, one by one


class Line(NamedTuple):
    """Of a manifest, as it stands there."""

    manifest: int  # which, of several
    number: int  # from 1
    text: bytes


@dataclass
class User:
    """A person's lines.

    Args:
        hashed: `user_hash` of the id.
        lines: in the order of manifests and lines.
        seconds: of speech, as the lines say.
        problem: why no adapter can be trained, as far as it shows in other people's lines.
    """

    hashed: str
    lines: list[Line] = field(default_factory=list)
    seconds: float = 0.0
    problem: str | None = None


class Shards:
    """Manifests, sorted by user.

    Args:
        paths: of manifests, as of `read_manifest`.
        key: what to call them in messages.
        speaker_key: their field that names the user.
        folder: an empty one, for somewhat more than the manifests take.

    Raises:
        InputError: a manifest cannot be read, has no line that says whose it is, or one without a user id.
    """

    def __init__(self, paths: str | Sequence[str] | None, key: str, speaker_key: str, folder: Path) -> None:
        self.manifests = [Path(os.path.abspath(path)) for path in manifest_paths(paths, key)]
        self.speaker_key = speaker_key
        self.lines, self.seconds = 0, 0.0
        self.nobodys: list[str] = []  # what is wrong with the first lines that do not say whose they are
        self._shards = [folder / f"{number:02x}.lines" for number in range(SHARDS)]
        self._recordings = [folder / f"{number}.recordings" for number in range(RECORDINGS)]
        self._sort(key)
        if not self.lines:
            raise InputError(self.nobodys[0] if self.nobodys else f"{key}={paths}: the manifest has no utterances")
        found = [_shared(np.fromfile(path, PAIR)) for path in self._recordings]
        self._shared_users = {int(user) for _, users in found for user in users}
        self._shared_recordings = {int(recording) for recordings, _ in found for recording in recordings}

    def users(self) -> Iterator[User]:
        """Everybody with all their lines, in the order of their hashes; one shard at a time is in memory."""
        for path in self._shards:
            users: dict[str, User] = {}
            with path.open("rb") as file:
                for record in file:
                    hashed, seconds, manifest, number, text = record.split(b" ", 4)
                    user = users.setdefault(name := hashed.decode(), User(name))
                    user.lines.append(Line(int(manifest), int(number), text))
                    user.seconds += float(seconds)
            for name in sorted(users):
                user = users.pop(name)
                user.problem = self._problem(user)
                yield user

    def place(self, line: Line) -> str:
        """What to call a line in a message."""
        return f"{self.manifests[line.manifest]}, line {line.number}"

    def _sort(self, key: str) -> None:
        with ExitStack() as files:
            shards, recordings = (
                [files.enter_context(open(path, "wb", BUFFER)) for path in paths]
                for paths in (self._shards, self._recordings)
            )
            for manifest, path in enumerate(self.manifests):
                name, parent = str(path), str(path.parent)
                for _, number, text in raw_lines(path, key):
                    try:
                        fields = parse_fields(text)
                        if not fields:
                            raise InputError("it is empty")
                    except InputError as error:
                        if len(self.nobodys) < MOST_TOLD:
                            self.nobodys.append(f"{name}, line {number}: {error}")
                        continue
                    hashed = user_hash(user_id_of(fields, f"{name}, line {number}", self.speaker_key))
                    seconds = _number(fields, "duration")
                    self.lines += 1
                    self.seconds += seconds
                    record = f"{hashed} {seconds!r} {manifest} {number} ".encode()
                    shards[int(hashed[:2], 16)].write(record + text.rstrip(b"\n") + b"\n")
                    recording = _recording(fields, parent)
                    recordings[recording % RECORDINGS].write(PACKED.pack(recording, _short(hashed)))

    def _problem(self, user: User) -> str | None:
        if _short(user.hashed) not in self._shared_users:
            return None
        for line in user.lines:
            if (
                _recording(parse_fields(line.text), str(self.manifests[line.manifest].parent))
                in self._shared_recordings
            ):
                return f"{self.place(line)}: this recording is listed for another user too"
        return None


def speakers_of(users: Iterable[User], manifests: Sequence[Path], speaker_key: str) -> list[Speaker]:
    """What the lines say, checked as `read_speakers` does it; in the order of the users."""
    found = []
    for user in users:
        lines = [
            parse_line(text, manifests[manifest], f"{manifests[manifest]}, line {number}")
            for manifest, number, text in user.lines
        ]
        ((speaker,), _) = sort_by_speaker(lines, speaker_key)
        speaker.problem = speaker.problem or user.problem
        found.append(speaker)
    return found


def _shared(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the recordings that several users have, and of these users."""
    pairs = pairs[np.lexsort((pairs["user"], pairs["recording"]))]
    one, next_one = pairs[:-1], pairs[1:]
    is_shared = (one["recording"] == next_one["recording"]) & (one["user"] != next_one["user"])
    recordings = np.unique(one["recording"][is_shared])
    return recordings, np.unique(pairs["user"][np.isin(pairs["recording"], recordings)])


def _recording(fields: Mapping[str, Any], folder: str) -> int:
    """Hash of file and offset, by their names; `folder` is the manifest's."""
    name = f"{os.path.join(folder, str(fields.get('audio_filepath')))}\0{_number(fields, 'offset')!r}"
    return int.from_bytes(blake2b(name.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _number(fields: Mapping[str, Any], name: str) -> float:
    """0 for what is none: whoever trains says what is wrong with it."""
    value = fields.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_SECONDS:
        return float(value)
    return 0.0


def _short(hashed: str) -> int:
    return int(hashed[:16], 16)
