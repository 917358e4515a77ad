"""Whose utterances the lines of a manifest are."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.adapters.users import check_user_id
from nemo_ds2_adapters.data.audio import audio_identity
from nemo_ds2_adapters.data.findings import check_recordings
from nemo_ds2_adapters.data.manifest import BadLine, Utterance, read_lines
from nemo_ds2_adapters.data.transcripts import check_vocabulary
from nemo_ds2_adapters.errors import InputError

LEAST_RECORDINGS = 2  # with fewer, nothing can tell whether an adapter helps


@dataclass
class Speaker:
    """A person's utterances, in the manifest's order."""

    user_id: str
    utterances: list[Utterance] = field(default_factory=list)
    problem: str | None = None  # why no adapter can be trained
    findings: list[str] = field(default_factory=list)  # of the recordings

    @property
    def seconds(self) -> float:
        """Of speech."""
        return sum(utterance.duration for utterance in self.utterances)

    def data_hash(self) -> str:
        """SHA-256 over everything that the data contribute to an adapter: another hash, other data."""
        digest = hashlib.sha256()
        for utterance in self.utterances:
            digest.update(json.dumps([*audio_identity(utterance), utterance.text]).encode())
        return digest.hexdigest()


def read_speakers(paths: str | list[str] | None, key: str, speaker_key: str) -> tuple[list[Speaker], list[BadLine]]:
    """Sort the lines of a manifest by speaker: see `sort_by_speaker`; paths and `key` are as of `read_manifest`.

    Raises InputError: the manifest cannot be read, has no lines or none that says whose it is, or one without a user
    id.
    """
    speakers, nobodys = sort_by_speaker(read_lines(paths, key), speaker_key)
    if not speakers:
        raise nobodys[0]
    return speakers, nobodys


def sort_by_speaker(lines: Iterable[Utterance | BadLine], speaker_key: str) -> tuple[list[Speaker], list[BadLine]]:
    """Whose lines these are. A line that is wrong is its speaker's problem, and nobody else's.

    A recording that is listed twice is a problem too: of one speaker, since it could not be left out of training to be
    scored, and of several, since nobody knows whose it is. `speaker_key` is the field that names the speaker.

    Returns the speakers, and the lines that are no JSON objects and so do not say whose they are. Raises InputError: a
    line has no user id.
    """
    speakers: dict[str, Speaker] = {}
    nobodys: list[BadLine] = []
    for line in lines:
        if isinstance(line, BadLine) and not line.fields:
            nobodys.append(line)
            continue
        user_id = user_id_of(line.fields, line.place, speaker_key)
        speaker = speakers.setdefault(user_id, Speaker(user_id))
        if isinstance(line, BadLine):
            speaker.problem = speaker.problem or str(line)
        else:
            speaker.utterances.append(line)
    found = list(speakers.values())
    for speaker in found:
        if len(speaker.utterances) < LEAST_RECORDINGS:
            speaker.problem = (
                speaker.problem or f"{len(speaker.utterances)} utterance, at least {LEAST_RECORDINGS} are needed"
            )
    _note_equal((speaker, u, (u.audio.resolve(), u.offset)) for speaker in found for u in speaker.utterances)
    return found, nobodys


def check_speakers(speakers: Iterable[Speaker], key: str, model: ASRModel) -> None:
    """Look for what the model cannot use and for equal recordings, and note it in the speakers."""
    sounds = []
    for speaker in speakers:
        if speaker.problem is None:
            try:
                check_vocabulary(speaker.utterances, key, model)
                findings = check_recordings(speaker.utterances, model)
            except InputError as error:
                speaker.problem = str(error)
                continue
            speaker.findings = [line.strip() for line in findings.lines(key)[1:]]
            sounds += [(speaker, *pair) for pair in zip(speaker.utterances, findings.sounds)]
    _note_equal(sounds)


def _note_equal(found: Iterable[tuple[Speaker, Utterance, object]]) -> None:
    """Make equal recordings, by their third value, the problem of all whose they are."""
    of_recording = defaultdict(list)
    for speaker, utterance, recording in found:
        if recording is not None:
            of_recording[recording].append((speaker, utterance))
    for group in of_recording.values():
        for i, (speaker, utterance) in enumerate(group[1:] and group):
            other, equal = group[1] if i == 0 else group[0]
            whose = "" if other is speaker else f" of {other.user_id!r}"
            speaker.problem = speaker.problem or f"{utterance.label} is there twice, as {equal.label}{whose} too"


def user_id_of(fields: Mapping[str, Any], place: str, speaker_key: str) -> str:
    """Whose a line with these fields is, or InputError: begins with `place`."""
    value = fields.get(speaker_key)
    if value is None:
        raise InputError(f"{place}: no field {speaker_key!r}; set model.adapter.speaker_key")
    if not isinstance(value, str):  # evaluation and transcription do not take it for a user id either
        raise InputError(f"{place}: {speaker_key}={value!r}, expected text that names a user")
    return check_user_id(value, f"{place}: {speaker_key}")
