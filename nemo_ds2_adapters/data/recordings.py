"""What is to be transcribed: files, arrays, tensors and manifests."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from nemo.collections.asr.parts.preprocessing.segment import AudioSegment
from nemo.collections.common.parts.preprocessing.manifest import get_full_path
from torch import Tensor

from nemo_ds2_adapters.errors import InputError

MANIFEST_ENDINGS = (".json", ".jsonl")
MIN_SECONDS = 0.1  # shorter recordings are followed by silence: a spectrogram needs some frames
AudioSource = str | os.PathLike[str] | np.ndarray | Tensor


@dataclass(frozen=True)
class Recording:
    """One utterance.

    Args:
        label: what to call it in a message.
        source: file, or samples at the model's rate.
        offset: seconds into the file.
        seconds: its duration.
        entry: its line of the manifest, if it comes from one.
    """

    label: str
    source: Path | np.ndarray
    offset: float
    seconds: float
    entry: dict[str, Any] = field(default_factory=dict)

    def samples(self, sample_rate: int, start: float = 0.0, seconds: float | None = None) -> np.ndarray:
        """Part of it, channels averaged and resampled.

        Args:
            sample_rate: Hz.
            start: seconds into the utterance.
            seconds: of the part, None for all that follows.

        Returns:
            float32 `[T]`.

        Raises:
            InputError: it cannot be read, has no samples or such that are not finite.
        """
        seconds = self.seconds - start if seconds is None else seconds
        try:
            if isinstance(self.source, Path):
                found = AudioSegment.from_file(
                    str(self.source),
                    target_sr=sample_rate,
                    offset=self.offset + start,
                    duration=seconds,
                    channel_selector="average",
                ).samples
            else:
                first = round(start * sample_rate)
                part = self.source[first : first + round(seconds * sample_rate)]
                found = AudioSegment(part, sample_rate).samples
        except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
            raise InputError(f"{self.label}: cannot be read as audio ({error})") from None
        if not len(found) or not np.isfinite(found).all():
            raise InputError(f"{self.label}: has no samples, or some that are not finite")
        return np.pad(found, (0, max(0, round(MIN_SECONDS * sample_rate) - len(found))))


def is_manifest(audio: object) -> bool:
    """Whether `audio` is the path of a NeMo manifest."""
    return isinstance(audio, str | os.PathLike) and os.fspath(audio).endswith(MANIFEST_ENDINGS)


def manifest_lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of each line that is not empty.

    Raises:
        InputError: there is none, or the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the manifest cannot be read ({error})") from None
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise InputError(f"{path}: the manifest has no lines")
    return numbered


def open_recordings(audio: AudioSource | Sequence[AudioSource], sample_rate: int) -> Iterator[Recording | InputError]:
    """The utterances one after the other; for one that cannot be opened, the reason.

    Args:
        audio: path of a file or a NeMo manifest, array or tensor of samples at the model's rate, or a list of these
            except manifests.
        sample_rate: of arrays and tensors, Hz.

    Raises:
        InputError: the manifest cannot be read, or there are no utterances.
    """
    if is_manifest(audio):
        manifest = Path(audio)  # type: ignore[arg-type]
        for i, line in manifest_lines(manifest):
            yield _opened(f"{manifest}, line {i}", line, manifest, sample_rate)
        return
    items = list(audio) if isinstance(audio, list | tuple) else [audio]
    if not items:
        raise InputError("there is no audio: give at least one file, array or tensor")
    for number, item in enumerate(items):
        yield _opened(f"audio[{number}]", item, None, sample_rate)


def _opened(label: str, item: Any, manifest: Path | None, sample_rate: int) -> Recording | InputError:
    try:
        if manifest is not None:
            return _from_line(label, item, manifest)
        if isinstance(item, str | os.PathLike):
            return _from_file(os.fspath(item), Path(item))
        return _from_samples(label, item, sample_rate)
    except InputError as error:
        return error


def _from_line(label: str, line: str, manifest: Path) -> Recording:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{label}: not a JSON object ({error.msg})") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("audio_filepath"), str):
        raise InputError(f"{label}: expected a JSON object with a path in 'audio_filepath'")
    numbers = [entry.get(key) for key in ("offset", "duration")]
    for key, value in zip(("offset", "duration"), numbers):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
            raise InputError(f"{label}: {key}={value!r}, expected seconds")
    path = Path(get_full_path(entry["audio_filepath"], str(manifest)))
    return _from_file(label, path, numbers[0] or 0.0, numbers[1], entry)


def _from_file(
    label: str, path: Path, offset: float = 0.0, seconds: float | None = None, entry: dict[str, Any] | None = None
) -> Recording:
    if not path.is_file():
        raise InputError(f"{label}: audio file {path.name} does not exist")
    try:
        available = soundfile.info(path).duration - offset
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(f"{label}: {path.name} cannot be read as audio ({error})") from None
    if available <= 0:
        raise InputError(f"{label}: {path.name} has no samples at {offset} s")
    return Recording(label, path, offset, min(seconds or available, available), entry or {})


def _from_samples(label: str, samples: Any, sample_rate: int) -> Recording:
    if isinstance(samples, Tensor):
        samples = samples.detach().cpu().numpy()
    if not isinstance(samples, np.ndarray) or samples.ndim != 1 or not len(samples):
        what = f"shape {samples.shape}" if isinstance(samples, np.ndarray) else type(samples).__name__
        raise InputError(f"{label}: {what}, expected a path, or an array or tensor of samples [T]")
    return Recording(label, samples, 0.0, len(samples) / sample_rate)
