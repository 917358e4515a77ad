"""NeMo manifests: parsed once, checked once, handed on as values."""

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as shown
from typing import Any

import numpy as np

from nemo_ds2_adapters.errors import InputError

MOST_SECONDS = 1e9  # 30 years: more is a mistake, and no longer a whole number of samples that a file could have
MOST_SHOWN = 200  # characters of a path in a message
FilePath = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Utterance:
    """A stretch of a recording, and what is said in it.

    Args:
        audio: file; the name of what has none, but samples.
        text: what is said, empty if nobody wrote it down.
        duration: seconds; infinite: as long as the file.
        offset: seconds into the file.
        place: manifest and line, for messages.
        fields: the whole line.
        samples: `[T]` at the model's rate, in place of a file.
    """

    audio: Path
    text: str = ""
    duration: float = math.inf
    offset: float = 0.0
    place: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    samples: np.ndarray | None = None

    @property
    def label(self) -> str:
        """What to call it in a message: place and file."""
        return f"{self.place}: {self.audio.name}" if self.place else str(self.audio)


class BadLine(InputError):
    """A line of a manifest that describes no utterance.

    Args:
        place: manifest and line.
        problem: what is wrong with it.
        fields: what it says all the same, empty if it is not a JSON object.
    """

    def __init__(self, place: str, problem: str, fields: dict[str, Any]) -> None:
        super().__init__(f"{place}: {problem}")
        self.place = place
        self.fields = fields


def read_manifest(paths: FilePath | Sequence[FilePath] | None, key: str) -> list[Utterance]:
    """The transcribed utterances of a manifest, or of several, by their paths (see `manifest_paths`).

    `key` is the config key or argument that holds them, for messages. Raises InputError: a file cannot be read, a line
    is not what a manifest's line must be (with its number), an audio file is missing, or there is no utterance at all.
    """
    utterances = []
    for line in read_lines(paths, key):
        if isinstance(line, BadLine):
            raise line
        utterances.append(line)
    return utterances


def read_lines(
    paths: FilePath | Sequence[FilePath] | None, key: str, transcribed: bool = True
) -> list[Utterance | BadLine]:
    """As `read_manifest`, in the order of the lines; but a wrong line is nobody's problem but its own.

    Not `transcribed`, a line needs neither text nor duration; without one, an utterance lasts as long as its file.
    """
    found = [
        parse_line(line, manifest, f"{manifest}, line {number}", transcribed)
        for manifest, number, line in raw_lines(paths, key)
    ]
    if not found:
        raise InputError(f"{key}={paths}: the manifest has no utterances")
    return found


def raw_lines(paths: FilePath | Sequence[FilePath] | None, key: str) -> Iterator[tuple[Path, int, bytes]]:
    """The lines of manifests that are not empty, one after the other as they are read: manifest, number, bytes.

    `paths` and `key` are as of `read_manifest`. Raises InputError: a file cannot be read.
    """
    for manifest in manifest_paths(paths, key):
        try:
            with manifest.open("rb") as file:  # which ends lines at b"\n" alone; others are legal within JSON
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield manifest, number, line
        except FileNotFoundError:
            raise InputError(f"{key}={manifest}: no such file") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{key}={manifest}: cannot be read as a text file ({error})") from None


def manifest_paths(paths: FilePath | Sequence[FilePath] | None, key: str) -> list[Path]:
    """The manifests that a path, several joined by commas, or a list of them name; anything else is an InputError."""
    if not paths:
        raise InputError(f"{key} is not set; give the path of a NeMo manifest")
    if isinstance(paths, os.PathLike):
        return [Path(paths)]
    names = paths.split(",") if isinstance(paths, str) else list(paths)
    if not all(isinstance(name, str | os.PathLike) for name in names):
        raise InputError(f"{key}={names}: expected paths of NeMo manifests")
    return [Path(name.strip() if isinstance(name, str) else name) for name in names]


def parse_line(line: bytes, manifest: Path, place: str, transcribed: bool = True) -> Utterance | BadLine:
    """What a line says; `place` is what to call it in a message."""
    fields: dict[str, Any] = {}
    try:
        fields = parse_fields(line)
        return _utterance(fields, manifest, place, transcribed)
    except InputError as error:
        return BadLine(place, str(error), fields)


def parse_fields(line: bytes) -> dict[str, Any]:
    """The JSON object of a line, or InputError: it is none."""
    try:
        text = line.decode("utf-8")
        fields = json.loads(text)
        if "\\u" in text:
            json.dumps(fields, ensure_ascii=False).encode("utf-8")  # one half of a surrogate pair is no text
    except UnicodeError:
        raise InputError("not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise InputError(f"not a JSON object ({error.msg})") from None
    except ValueError:
        raise InputError("not a JSON object that can be read (a number is too long)") from None
    except RecursionError:
        raise InputError("not a JSON object that can be read (nested too deeply)") from None
    if not isinstance(fields, dict):
        raise InputError(f"expected a JSON object, got {text.strip()[:40]}")
    return fields


def _utterance(fields: dict[str, Any], manifest: Path, place: str, transcribed: bool) -> Utterance:
    for name in ("audio_filepath", "text", "duration") if transcribed else ("audio_filepath",):
        if name not in fields:
            raise InputError(f"{name!r} is missing")
        if name != "duration" and not isinstance(fields[name], str):
            raise InputError(f"{name}={shown(fields[name])} is of the wrong type")
    text = fields["text"] if transcribed else ""
    duration = _seconds(fields, "duration") if transcribed or fields.get("duration") else math.inf
    if duration == 0:
        raise InputError(f"duration={shown(fields['duration'])}, expected seconds above 0")
    offset = _seconds(fields, "offset") if fields.get("offset") is not None else 0.0
    return Utterance(_audio_path(fields["audio_filepath"], manifest), text, duration, offset, place, fields)


def _seconds(fields: dict[str, Any], name: str) -> float:
    value = fields[name]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{name}={shown(value)} is of the wrong type")
    if not 0 <= value <= MOST_SECONDS:
        least = "seconds above 0" if name == "duration" else "seconds from 0 on"
        raise InputError(f"{name}={shown(value)}, expected {least}, at most {MOST_SECONDS:.0e}")
    return float(value)


def _audio_path(name: str, manifest: Path) -> Path:
    """NeMo's rule: a path is relative to the manifest's folder; if there is no such file, to the current one."""
    for path in (manifest.parent / name, Path(os.path.expanduser(name))):
        if is_file(path):
            return Path(os.path.abspath(path))
    raise InputError(f"audio file {name[:MOST_SHOWN]} does not exist")


def is_file(path: FilePath) -> bool:
    """Whether there is such a file, also where the path is too long or has a character that no path has."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False
