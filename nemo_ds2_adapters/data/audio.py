"""Sound: the one place where recordings are read."""

import math
from dataclasses import replace

import numpy as np
import soundfile
import soxr

from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError

MIN_SECONDS = 0.1  # shorter recordings are followed by silence: a spectrogram needs some frames


def read_audio(utterance: Utterance, sample_rate: int, start: float = 0.0, seconds: float = math.inf) -> np.ndarray:
    """The samples of an utterance, or of a part of it; channels are averaged.

    Args:
        utterance: if it holds samples itself, they are at this rate.
        sample_rate: Hz, to which files are resampled.
        start: seconds into the utterance.
        seconds: of the part.

    Returns:
        float32 `[T]`, full scale is 1.

    Raises:
        InputError: it cannot be read, has no samples or such that are not finite.
    """
    seconds = min(seconds, utterance.duration - start)
    if utterance.samples is None:
        samples = _from_file(utterance, sample_rate, start, seconds)
    else:
        first = round(start * sample_rate)
        samples = utterance.samples[first : first + round(seconds * sample_rate)]
    if not len(samples):
        raise InputError(f"{utterance.label} has no samples at {utterance.offset + start:g} s")
    if not np.isfinite(samples).all():
        raise InputError(f"{utterance.label} has samples that are not finite")
    return np.pad(samples, (0, max(0, round(MIN_SECONDS * sample_rate) - len(samples))))


def fitted(utterance: Utterance) -> Utterance:
    """The utterance, no longer than its file, which is an InputError if it cannot be read, or ends before."""
    if utterance.samples is not None:
        return utterance
    try:
        available = soundfile.info(utterance.audio).duration - utterance.offset
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(f"{utterance.label} cannot be read as audio ({error})") from None
    if available <= 0:
        raise InputError(f"{utterance.label} has no samples at {utterance.offset:g} s")
    return replace(utterance, duration=min(utterance.duration, available))


def audio_identity(utterance: Utterance) -> list[str | float]:
    """What tells a recording from another, or from what its file was before: path, bytes, ns of the last change."""
    path = utterance.audio.resolve()
    state = path.stat()
    return [str(path), state.st_size, state.st_mtime_ns, utterance.offset, utterance.duration]


def _from_file(utterance: Utterance, sample_rate: int, start: float, seconds: float) -> np.ndarray:
    """As NeMo reads it, but that it leaves several channels as they are."""
    try:
        with soundfile.SoundFile(utterance.audio) as file:
            file.seek(min(int((utterance.offset + start) * file.samplerate), file.frames))
            count = -1 if seconds == math.inf else int(seconds * file.samplerate)
            samples = file.read(count, dtype="float32", always_2d=True).mean(axis=1)
            if len(samples) and file.samplerate != sample_rate:
                count = math.ceil(len(samples) * sample_rate / file.samplerate)
                samples = soxr.resample(samples, file.samplerate, sample_rate)[:count]
                samples = np.pad(samples, (0, count - len(samples)))  # librosa's length, which NeMo's is
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise InputError(f"{utterance.label} cannot be read as audio ({error})") from None
    return samples
