"""Synthetic speech from espeak-ng, which the ``espeakng-loader`` wheel brings as a shared library.

The library is driven through ctypes; its C interface is ``espeak-ng/speak_lib.h``.
"""

import _ctypes
import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import soxr
from numpy.typing import NDArray

SAMPLE_RATE = 16_000  # Hz, of everything this package hands out
ENGINE_SAMPLE_RATE = 22_050  # Hz, what espeak-ng's own (formant) voices are made at

PITCH_RANGE = (0, 99)  # espeak-ng's scale; 50 is the voice's own pitch
RATE_RANGE = (80, 450)  # words per minute
WORD_GAP_UNIT_MS = 10

# From speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000  # otherwise a missing data directory ends the whole process
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_WORD_GAP = 1, 3, 7
_AudioCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)

# What espeak-ng reads wrongly. In a row of letters it says "a" as the article and "i" unstressed, as the pronoun;
# "eh" and "eye" have the phonemes of the letters' names ("ay" has not: it rhymes with "eye").
_RESPELLED = {"a": "eh", "i": "eye", "rubout": "rub out"}

# The library keeps one state per process.
_LOCK = threading.Lock()


class _Voice(ctypes.Structure):
    """The leading fields of espeak_VOICE; the rest is never read."""

    _fields_ = [("name", ctypes.c_char_p), ("languages", ctypes.c_char_p), ("identifier", ctypes.c_char_p)]


class Synthesizer:
    """Turns text into speech; the same text, voice and settings always give the same samples.

    espeak-ng carries the phase of its pitch flutter, its gain control and its random numbers over from one utterance
    to the next and has no call that resets them, so an utterance would depend on all those before it. Every call
    therefore loads the library afresh and unloads it afterwards, which costs some 3 ms.

    Calls from several threads wait for each other.

    Raises:
        ImportError: the ``espeakng-loader`` package is not installed.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise ImportError(
                "synthetic speech needs espeak-ng; install it with: pip install 'nemo_ds2_adapters[demo]'"
            ) from error
        self._library_path: str = espeakng_loader.get_library_path()
        self._data_path: str = espeakng_loader.get_data_path()

    def synthesize(
        self, text: str, voice: str, pitch: int = 50, rate: int = 175, word_gap_ms: int = 0
    ) -> NDArray[np.float32]:
        """Speak one utterance.

        Args:
            text: the transcript; a single letter is spoken as its name.
            voice: espeak-ng's name of an accent, with an optional variant: ``en-us``, ``en-us+Andy``.
            pitch: 0 to 99, relative to the voice's own pitch, which is 50.
            rate: words per minute, 80 to 450.
            word_gap_ms: pause added between words, in ms at 175 words per minute; counts in steps of 10.

        Returns:
            ``[samples]``, mono, 16 kHz, nominally within -1 to 1.

        Raises:
            ValueError: espeak-ng has no such voice, or a setting is out of range.
            RuntimeError: the engine failed, or had nothing to say.
        """
        _check_range("pitch", pitch, PITCH_RANGE)
        _check_range("rate", rate, RATE_RANGE)
        _check_range("word_gap_ms", word_gap_ms, (0, 1000))
        chunks: list[bytes] = []

        def collect(samples: int | None, count: int, _events: int | None) -> int:
            if samples and count > 0:
                chunks.append(ctypes.string_at(samples, 2 * count))
            return 0  # go on

        callback = _AudioCallback(collect)
        spoken = _respell(text).encode()
        with self._engine(voice) as engine:
            engine.espeak_SetSynthCallback(callback)
            for parameter, value in (
                (_PARAMETER_PITCH, pitch),
                (_PARAMETER_RATE, rate),
                (_PARAMETER_WORD_GAP, word_gap_ms // WORD_GAP_UNIT_MS),
            ):
                _check(engine.espeak_SetParameter(parameter, value, 0), f"set parameter {parameter} to {value}")
            size = len(spoken) + 1  # with the terminating zero
            code = engine.espeak_Synth(spoken, size, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
            _check(code, f"speak {text!r} with voice {voice!r}")
            _check(engine.espeak_Synchronize(), f"finish {text!r} with voice {voice!r}")
        samples = np.frombuffer(b"".join(chunks), np.int16)
        if not samples.any():
            raise RuntimeError(f"espeak-ng made no sound of {text!r} with voice {voice!r}")
        scaled = samples.astype(np.float32) / 32768
        return np.asarray(soxr.resample(scaled, ENGINE_SAMPLE_RATE, SAMPLE_RATE), np.float32)

    def phonemes(self, text: str, voice: str) -> str:
        """How ``text`` is pronounced, in espeak-ng's own phoneme letters, one blank between words.

        Raises:
            ValueError: espeak-ng has no such voice.
        """
        rest = ctypes.c_char_p(_respell(text).encode())
        clauses: list[str] = []
        with self._engine(voice) as engine:
            while rest.value:  # each call reads one clause and moves the pointer behind it
                clauses.append(engine.espeak_TextToPhonemes(ctypes.byref(rest), _CHARS_UTF8, 0).decode())
        return " ".join(clauses)

    @contextmanager
    def _engine(self, voice: str) -> Iterator[ctypes.CDLL]:
        """A freshly loaded library that speaks with ``voice``."""
        with _LOCK:
            engine = _declare(ctypes.CDLL(self._library_path))
            try:
                self._start(engine)
                _select_voice(engine, voice)
                yield engine
            finally:
                engine.espeak_Terminate()
                _unload(engine)

    def _start(self, engine: ctypes.CDLL) -> None:
        rate = engine.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, self._data_path.encode(), _INITIALIZE_DONT_EXIT)
        if rate != ENGINE_SAMPLE_RATE:
            raise RuntimeError(
                f"espeak-ng did not start: sample rate {rate} instead of {ENGINE_SAMPLE_RATE} Hz. Its data directory "
                f"must be readable and its path shorter than 160 characters, it is {self._data_path}"
            )
        # Unset, the breath of some variants is seeded with the time of day.
        _check(engine.espeak_ng_SetRandSeed(1), "seed its random numbers")


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tell ctypes the types of the C functions used here."""
    library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    library.espeak_GetCurrentVoice.restype = ctypes.POINTER(_Voice)
    library.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.espeak_SetSynthCallback.argtypes = [_AudioCallback]
    library.espeak_SetSynthCallback.restype = None
    library.espeak_Synth.argtypes = [
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int),
        *(ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p),
    ]
    library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    return library


def _select_voice(engine: ctypes.CDLL, voice: str) -> None:
    """Change the voice, or raise: on an unknown accent espeak-ng keeps the last voice, on an unknown variant it takes
    the plain accent and reports success."""
    code = engine.espeak_SetVoiceByName(voice.encode())
    if code == 0:
        current = engine.espeak_GetCurrentVoice()
        identifier = current.contents.identifier.decode() if current else ""
        variant = voice.partition("+")[2]
        if identifier.partition("+")[2] == variant:
            return
        reason = f"it offered {identifier!r}"
    else:
        reason = f"code {code}"
    raise ValueError(f"espeak-ng has no voice {voice!r} ({reason})")


def _unload(library: ctypes.CDLL) -> None:
    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)


def _respell(text: str) -> str:
    return " ".join(_RESPELLED.get(word, word) for word in text.split())


def _check(code: int, action: str) -> None:
    if code != 0:
        raise RuntimeError(f"espeak-ng could not {action}: code {code}")


def _check_range(name: str, value: int, allowed: tuple[int, int]) -> None:
    low, high = allowed
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low} to {high}, got {value}")
