"""The ctypes wrapper around espeak-ng."""

import re
import sys
from string import ascii_lowercase

import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="needs the [demo] extra")

from demo.corpus import BASE_ACCENTS, DEMO_USERS
from demo.voices import SAMPLE_RATE, Synthesizer

TEXT = "rubout a b c seven"
# Plain, with breath noise (drawn from random numbers), and with echo and roughness besides.
VOICES = ("en-us", "en-us+f2", "en-us+f3", "en-gb-scotland+grandpa")


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer()


def test_speech_is_loud_unclipped_mono_16_khz(synthesizer: Synthesizer) -> None:
    speech = synthesizer.synthesize(TEXT, "en-us")
    assert speech.dtype == np.float32 and speech.ndim == 1
    assert 1.0 < speech.size / SAMPLE_RATE < 3.0  # seconds
    assert 0.02 < np.sqrt(np.mean(speech**2)) < 0.3
    assert np.abs(speech).max() < 1.0


def test_speech_does_not_depend_on_what_was_said_before(synthesizer: Synthesizer) -> None:
    first = {voice: synthesizer.synthesize(TEXT, voice) for voice in VOICES}
    for voice in reversed(VOICES):
        synthesizer.synthesize("no", voice, pitch=90, rate=300, word_gap_ms=200)
        np.testing.assert_array_equal(synthesizer.synthesize(TEXT, voice), first[voice])
    assert len({speech.tobytes() for speech in first.values()}) == len(VOICES)


def test_settings_change_the_speech(synthesizer: Synthesizer) -> None:
    plain = synthesizer.synthesize(TEXT, "en-us")
    slow = synthesizer.synthesize(TEXT, "en-us", rate=100)
    gaps = synthesizer.synthesize(TEXT, "en-us", word_gap_ms=100)
    high = synthesizer.synthesize(TEXT, "en-us", pitch=80)
    assert slow.size > 1.3 * plain.size
    assert gaps.size > plain.size + 0.3 * SAMPLE_RATE
    assert high.size != plain.size or not np.array_equal(high, plain)


@pytest.mark.parametrize(
    "voice",
    [
        pytest.param("xx-nowhere", id="accent"),
        pytest.param("en-gb", id="a language but not a voice"),
        pytest.param("en-us+nosuch", id="variant, which espeak-ng itself lets pass"),
        pytest.param("", id="empty"),
    ],
)
def test_unknown_voice_is_an_error_that_names_it(synthesizer: Synthesizer, voice: str) -> None:
    synthesizer.synthesize("yes", "en-us+Andy")
    with pytest.raises(ValueError, match=f"no voice {re.escape(repr(voice))}"):
        synthesizer.synthesize("yes", voice)
    with pytest.raises(ValueError, match=f"no voice {re.escape(repr(voice))}"):
        synthesizer.phonemes("yes", voice)


@pytest.mark.parametrize(("setting", "value"), [("pitch", 100), ("pitch", -1), ("rate", 79), ("word_gap_ms", -10)])
def test_setting_out_of_range_is_an_error(synthesizer: Synthesizer, setting: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{setting} must be .*, got {value}"):
        synthesizer.synthesize("yes", "en-us", **{setting: value})


@pytest.mark.parametrize("text", ["", "  ", "."])
def test_nothing_to_say_is_an_error(synthesizer: Synthesizer, text: str) -> None:
    with pytest.raises(RuntimeError, match="no sound"):
        synthesizer.synthesize(text, "en-us")


def test_missing_engine_data_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    synthesizer = Synthesizer()
    monkeypatch.setattr(synthesizer, "_data_path", "/nonexistent")
    with pytest.raises(RuntimeError, match="did not start"):
        synthesizer.synthesize("yes", "en-us")


def test_missing_engine_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'nemo_ds2_adapters[demo]'")):
        Synthesizer()


def bare(phonemes: str) -> str:
    """Phonemes without stress, pauses and the r that links to a following vowel."""
    return re.sub(r"[',_:;%]|r-", "", phonemes)


ACCENTS = (*BASE_ACCENTS, *(user.voice.partition("+")[0] for user in DEMO_USERS))


@pytest.mark.parametrize("accent", ACCENTS)
def test_letters_are_read_by_name_wherever_they_stand(synthesizer: Synthesizer, accent: str) -> None:
    letters = ascii_lowercase + "aiaai"  # also next to each other and to themselves
    alone = [bare(synthesizer.phonemes(letter, accent)) for letter in letters]
    together = synthesizer.phonemes(f"erase {' '.join(letters)} four", accent)
    assert bare(together).split()[1:-1] == alone


def test_a_is_the_vowel_of_day_and_i_that_of_by(synthesizer: Synthesizer) -> None:
    assert bare(synthesizer.phonemes("a", "en-us")) == bare(synthesizer.phonemes("day", "en-us"))[1:] == "eI"
    assert bare(synthesizer.phonemes("i", "en-us")) == bare(synthesizer.phonemes("by", "en-us"))[1:] == "aI"
    assert synthesizer.phonemes(TEXT, "en-us") == "r'Vb 'aUt 'eI b'i: s'i: s'Ev@n"
