"""The one reader of recordings."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from nemo.collections.asr.parts.preprocessing.segment import AudioSegment

from nemo_ds2_adapters.data.audio import MIN_SECONDS, audio_identity, fitted, read_audio
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError

RATE = 16000  # Hz


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)


@pytest.mark.parametrize("rate", [16000, 8000, 22050])
@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
@pytest.mark.parametrize(("offset", "duration"), [(0.0, 2.0), (0.3, 0.7), (0.123456, 5.0)])
def test_as_nemo_reads(tmp_path: Path, noise, rate: int, ending: str, offset: float, duration: float) -> None:
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, noise, rate)
    expected = AudioSegment.from_file(str(path), target_sr=RATE, offset=offset, duration=duration).samples
    found = read_audio(Utterance(path, "", duration, offset), RATE)
    assert found.dtype == np.float32 and np.array_equal(found, expected)


def test_channels_are_averaged(tmp_path: Path, noise: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([noise, 3 * noise, -noise], axis=1), RATE, "FLOAT")
    np.testing.assert_allclose(read_audio(Utterance(tmp_path / "a.wav"), RATE), noise, atol=1e-6)


def test_a_part(tmp_path: Path, noise: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", noise, RATE, "FLOAT")
    for samples in (None, noise):
        utterance = Utterance(tmp_path / "a.wav", duration=1.5, samples=samples)
        assert np.array_equal(read_audio(utterance, RATE, 0.5, 0.25), noise[8000:12000])
        assert np.array_equal(read_audio(utterance, RATE, 1.25), noise[20000:24000])


@pytest.mark.parametrize("samples", [1, 100, 1599])
def test_short_ones_are_followed_by_silence(tmp_path: Path, noise: np.ndarray, samples: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise[:samples], RATE, "FLOAT")
    found = read_audio(Utterance(tmp_path / "a.wav", "", 1.0), RATE)
    assert len(found) == MIN_SECONDS * RATE
    assert np.array_equal(found[:samples], noise[:samples]) and not found[samples:].any()


def test_what_cannot_be_read(tmp_path: Path, noise: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", noise, RATE)
    (tmp_path / "text.wav").write_text("no audio")
    for utterance, message in (
        (Utterance(tmp_path / "text.wav"), "text.wav cannot be read as audio"),
        (Utterance(tmp_path / "nowhere.wav"), "nowhere.wav cannot be read as audio"),
        (Utterance(tmp_path / "a.wav", "", 1.0, 2.0, "m.json, line 3"), "m.json, line 3: a.wav has no samples at 2 s"),
        (Utterance(tmp_path / "a.wav", "", 1.0, 1e9), "a.wav has no samples at 1e.09 s"),
    ):
        for read in (lambda one: read_audio(one, RATE), fitted):
            with pytest.raises(InputError, match=message):
                read(utterance)


def test_the_file_decides_how_long_an_utterance_is(tmp_path: Path, noise: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", noise, RATE)
    assert fitted(Utterance(tmp_path / "a.wav", "", 100.0, 0.5)).duration == 1.5
    assert fitted(Utterance(tmp_path / "a.wav")).duration == 2.0
    assert fitted(Utterance(tmp_path / "a.wav", "", 1.0)).duration == 1.0


def test_identity_follows_links_and_changes_with_the_file(tmp_path: Path, noise: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", noise, RATE)
    (tmp_path / "b.wav").symlink_to(tmp_path / "a.wav")
    first = audio_identity(Utterance(tmp_path / "a.wav", "", 1.0))
    assert first == audio_identity(Utterance(tmp_path / "b.wav", "", 1.0))
    assert first != audio_identity(Utterance(tmp_path / "a.wav", "", 1.0, 0.5))
    soundfile.write(tmp_path / "a.wav", noise[:-1], RATE)
    assert first != audio_identity(Utterance(tmp_path / "a.wav", "", 1.0))
