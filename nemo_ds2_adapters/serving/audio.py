"""Uploaded sound: looked at before it is decoded, and decoded no further than it may be long."""

import math
import wave
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from nemo_ds2_adapters.data.audio import MIN_SECONDS
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.serving.refusal import Refusal

FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3")  # of libsndfile, that a service takes
RATES = (4_000, 192_000)  # Hz
MOST_CHANNELS = 8
PIPED_BYTES = 0x7FFFF000  # a WAV that was written to a pipe claims about the largest number there is


def read_upload(file: BinaryIO, sample_rate: int, max_seconds: float) -> np.ndarray:
    """The samples of an uploaded file, channels averaged; float32 `[T]` at `sample_rate` Hz, full scale is 1.

    Raises:
        Refusal: the format is not known (415), or the recording is too long, or says so (413).
        InputError: there is no sound in it.
    """
    _check_claim(file, max_seconds)
    try:
        with soundfile.SoundFile(file) as sound:
            if sound.format not in FORMATS:
                raise _unknown(f"{sound.format} is not taken")
            if not (RATES[0] <= sound.samplerate <= RATES[1] and sound.channels <= MOST_CHANNELS):
                raise _unknown(f"{sound.channels} channels at {sound.samplerate} Hz are not taken")
            most = math.ceil(max_seconds * sound.samplerate)
            if sound.frames > most:
                raise _too_long(max_seconds)
            blocks, left = [], most + 1
            while left > 0 and len(block := sound.read(min(sound.samplerate, left), "float32", always_2d=True)):
                blocks.append(block.mean(axis=1))
                left -= len(block)
            if left <= 0:  # it is longer than it says
                raise _too_long(max_seconds)
            rate = sound.samplerate
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
        raise _unknown("it is none that can be read") from error
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if not len(samples) or not np.isfinite(samples).all():
        raise InputError("file: has no samples, or such that are not finite")
    if rate != sample_rate:
        samples = soxr.resample(samples, rate, sample_rate)
    return np.pad(samples, (0, max(0, round(MIN_SECONDS * sample_rate) - len(samples))))


def _check_claim(file: BinaryIO, max_seconds: float) -> None:
    """Refuse a WAV by what its header says, which libsndfile would set right silently."""
    try:
        with wave.open(file, "rb") as claimed:
            frames, rate, width = claimed.getnframes(), claimed.getframerate(), claimed.getsampwidth()
            is_piped = frames * width * claimed.getnchannels() >= PIPED_BYTES
    except (wave.Error, EOFError, ZeroDivisionError, ValueError):
        return  # another format, or a WAV that libsndfile may yet know
    finally:
        file.seek(0)
    if rate and frames / rate > max_seconds and not is_piped:
        raise _too_long(max_seconds)


def _unknown(what: str) -> Refusal:
    return Refusal(415, "format", f"file: {what}; send WAV, FLAC, Ogg (Opus or Vorbis) or MP3")


def _too_long(max_seconds: float) -> Refusal:
    return Refusal(413, "too_long", f"file: longer than {max_seconds:g} s, which is the limit")
