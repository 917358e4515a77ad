"""NeMo manifests: read, checked before anything is trained on them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo.collections.asr.models import ASRModel
from nemo.collections.common.parts.preprocessing.manifest import get_full_path
from omegaconf import ListConfig

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules.unicode_form import normalised


@dataclass(frozen=True)
class Utterance:
    """One line of a manifest."""

    audio: Path
    text: str
    duration: float  # seconds
    offset: float = 0.0  # seconds into the file
    place: str = field(default="", compare=False)  # file and line, for messages
    fields: dict[str, Any] = field(default_factory=dict, compare=False)  # the whole line


def read_manifest(key: str, paths: str | list[str] | None) -> list[Utterance]:
    """Read and check a manifest.

    Args:
        key: config key that holds the path, for messages.
        paths: a path, several joined by commas, or a list of them.

    Raises:
        InputError: the file cannot be read, a line is not what a manifest's line must be (with its number), an
            audio file is missing, or there is no utterance at all.
    """
    utterances = [line.utterance() for line in manifest_lines(key, paths)]
    if not utterances:
        raise InputError(f"{key}={paths}: the manifest has no utterances")
    return utterances


@dataclass(frozen=True)
class ManifestLine:
    """A line as it was found."""

    text: str
    number: int  # 1 for the first
    manifest: Path

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.manifest}, line {self.number}"

    def utterance(self) -> Utterance:
        """What the line says.

        Raises:
            InputError: it is not what a manifest's line must be, or its audio file is missing.
        """
        return _parse(self.place, self.text, self.manifest)


def manifest_lines(key: str, paths: str | list[str] | None) -> list[ManifestLine]:
    """The lines of a manifest, or of several, that are not empty.

    Args:
        key: config key that holds the path, for messages.
        paths: a path, several joined by commas, or a list of them.

    Raises:
        InputError: no path is given, or a file cannot be read.
    """
    if not paths:
        raise InputError(f"{key} is not set; give the path of a NeMo manifest")
    names = paths.split(",") if isinstance(paths, str) else list(paths)
    if isinstance(paths, ListConfig | list) and not all(isinstance(name, str) for name in names):
        raise InputError(f"{key}={list(paths)}: expected paths of NeMo manifests")
    return [line for name in names for line in _read_lines(key, Path(name.strip()))]


def check_vocabulary(key: str, utterances: Iterable[Utterance], model: ASRModel) -> None:
    """Refuse transcripts with characters that the model cannot write.

    Raises:
        InputError: lists the characters and an utterance that has one.
    """
    known: dict[str, bool] = {}
    for utterance in utterances:
        for character in normalised(utterance.text, model):
            if character not in known:
                known[character] = _is_known(character, model)
    unknown = sorted(character for character, is_known in known.items() if not is_known)
    if unknown:
        raise InputError(
            f"{key}: transcripts have characters outside the model's vocabulary: {' '.join(map(repr, unknown))}; "
            "normalise the transcripts (the model may know lower case only), or set model.char_labels"
        )


def _is_known(character: str, model: ASRModel) -> bool:
    if not hasattr(model, "tokenizer"):
        return character in model.decoder.vocabulary
    unknown_id = getattr(model.tokenizer, "unk_id", None)
    return character.isspace() or unknown_id not in model.tokenizer.text_to_ids(character)


def _read_lines(key: str, path: Path) -> list[ManifestLine]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{key}={path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{key}={path}: cannot be read as a text file ({error})") from None
    return [ManifestLine(line, i, path) for i, line in enumerate(lines, start=1) if line.strip()]


def _parse(place: str, line: str, manifest: Path) -> Utterance:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not a JSON object ({error.msg})") from None
    if not isinstance(entry, dict):
        raise InputError(f"{place}: expected a JSON object, got {line[:40]}")
    for name, kinds in (("audio_filepath", str), ("text", str), ("duration", (int, float))):
        if name not in entry:
            raise InputError(f"{place}: {name!r} is missing")
        if not isinstance(entry[name], kinds) or isinstance(entry[name], bool):
            raise InputError(f"{place}: {name}={entry[name]!r} is of the wrong type")
    if not entry["duration"] > 0:
        raise InputError(f"{place}: duration={entry['duration']}, expected seconds above 0")
    audio = Path(get_full_path(entry["audio_filepath"], str(manifest)))
    if not audio.is_file():
        raise InputError(f"{place}: audio file {entry['audio_filepath']} does not exist")
    offset = float(entry.get("offset") or 0.0)
    return Utterance(audio, entry["text"], float(entry["duration"]), offset, place, entry)
