"""Whose utterances the lines of a manifest are."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field

from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.activations.dataset import audio_identity
from nemo_ds2_adapters.adapters.users import check_user_id
from nemo_ds2_adapters.data.findings import check_recordings
from nemo_ds2_adapters.data.manifest import BadLine, Utterance, read_lines
from nemo_ds2_adapters.data.transcripts import check_vocabulary
from nemo_ds2_adapters.errors import InputError

LEAST_UTTERANCES = 2  # with fewer, nothing can tell whether an adapter helps


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
            audio = audio_identity(utterance.audio, utterance.offset, utterance.duration)
            digest.update(json.dumps([*audio, utterance.text]).encode())
        return digest.hexdigest()


def read_speakers(paths: str | list[str] | None, key: str, speaker_key: str) -> tuple[list[Speaker], list[BadLine]]:
    """Sort the lines of a manifest by speaker. A line that is wrong is its speaker's problem, and nobody else's.

    Args:
        paths: of the manifest, as `read_manifest` takes them.
        key: config key or argument that holds them, for messages.
        speaker_key: field of a line that names the speaker.

    Returns:
        the speakers, and the lines that are no JSON objects and so do not say whose they are.

    Raises:
        InputError: the manifest cannot be read or has no lines, or none says whose it is, or one without a user id.
    """
    speakers: dict[str, Speaker] = {}
    nobodys: list[BadLine] = []
    for line in read_lines(paths, key):
        if isinstance(line, BadLine) and not line.fields:
            nobodys.append(line)
            continue
        user_id = _user_id(line, speaker_key)
        speaker = speakers.setdefault(user_id, Speaker(user_id))
        if isinstance(line, BadLine):
            speaker.problem = speaker.problem or str(line)
        else:
            speaker.utterances.append(line)
    if not speakers:
        raise nobodys[0]
    for speaker in speakers.values():
        if speaker.problem is None and len(speaker.utterances) < LEAST_UTTERANCES:
            speaker.problem = f"{len(speaker.utterances)} utterance, at least {LEAST_UTTERANCES} are needed"
        if speaker.problem is None and (twice := _said_twice(speaker)):
            speaker.problem = f"{twice} is in the manifest twice"
    return list(speakers.values()), nobodys


def check_speaker(key: str, speaker: Speaker, model: ASRModel) -> None:
    """Look for what the model cannot use, and note it in the speaker."""
    if speaker.problem is None:
        try:
            check_vocabulary(key, speaker.utterances, model)
            speaker.findings = list(check_recordings(key, speaker.utterances, model, progress=False))[1:]
        except InputError as error:
            speaker.problem = str(error)


def _user_id(line: Utterance | BadLine, speaker_key: str) -> str:
    value = line.fields.get(speaker_key)
    if value is None:
        raise InputError(f"{line.place}: no field {speaker_key!r}; set model.adapter.speaker_key")
    if not isinstance(value, str):  # evaluation and transcription do not take it for a user id either
        raise InputError(f"{line.place}: {speaker_key}={value!r}, expected text that names a user")
    return check_user_id(value, f"{line.place}: {speaker_key}")


def _said_twice(speaker: Speaker) -> str | None:
    counts = Counter((utterance.audio.resolve(), utterance.offset) for utterance in speaker.utterances)
    (audio, _), count = counts.most_common(1)[0]
    return str(audio) if count > 1 else None
