"""What is said about recordings before training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_ds2_adapters.data.findings import check_recordings, equal_ones
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError

SAMPLE_RATE = 16000  # Hz


def record(path: Path, samples: np.ndarray, text: str = "yes") -> Utterance:
    soundfile.write(path, samples, SAMPLE_RATE)
    return Utterance(path, text, len(samples) / SAMPLE_RATE)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE)


def test_good_recordings_give_one_line(tmp_path: Path, noise: np.ndarray, make_model) -> None:
    utterances = [record(tmp_path / f"{i}.wav", noise * (i + 1)) for i in range(3)]
    assert check_recordings(utterances, make_model()).lines("train") == ["train: 3 utterances, 3.0 s"]


def test_findings_are_counted_with_an_example(tmp_path: Path, noise: np.ndarray, make_model) -> None:
    utterances = [
        record(tmp_path / "good.wav", noise),
        record(tmp_path / "loud.wav", np.clip(noise * 100, -1, 1)),
        record(tmp_path / "still.wav", noise * 1e-4),
        record(tmp_path / "fast.wav", noise[: SAMPLE_RATE // 10], text="far too many words"),
        record(tmp_path / "double.wav", noise[: SAMPLE_RATE // 10], text="aaaaa"),  # 5 units need 9 of 5 frames
    ]
    utterances[0] = replace(utterances[0], duration=100.0)
    utterances += [record(tmp_path / "mute.wav", noise / 2, text=" "), record(tmp_path / "copy.wav", noise)]
    found = check_recordings(utterances, make_model())
    assert found.lines("train") == [
        "train: 7 utterances, 5.2 s",
        "  shorter than the manifest says: 1 of 7, for example good.wav",
        "  clipped: 1 of 7, for example loud.wav",
        "  silent: 1 of 7, for example still.wav",
        "  transcript longer than its frames allow: 2 of 7, for example fast.wav, double.wav",
        "  without a transcript: 1 of 7, for example mute.wav",
        "  the same recording as another: 4 of 7, for example good.wav, copy.wav, fast.wav",
    ]
    assert equal_ones(found.sounds) == [[0, 6], [3, 4]]


def test_silence_is_equal_to_nothing(tmp_path: Path, make_model) -> None:
    utterances = [record(tmp_path / f"{i}.wav", np.zeros(SAMPLE_RATE)) for i in range(2)]
    found = check_recordings(utterances, make_model())
    assert found.sounds == [None, None] and equal_ones(found.sounds) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(tmp_path: Path, noise: np.ndarray, make_model, value: float) -> None:
    """One would make all weights NaN."""
    noise[7] = value
    soundfile.write(tmp_path / "a.wav", noise, SAMPLE_RATE, "FLOAT")
    with pytest.raises(InputError, match=r"a.wav has samples that are not finite"):
        check_recordings([Utterance(tmp_path / "a.wav", "yes", 1.0)], make_model())


def test_broken_files_are_named(tmp_path: Path, noise: np.ndarray, make_model) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"train.json, line 3: text.wav cannot be read as audio"):
        check_recordings([Utterance(tmp_path / "text.wav", "yes", 1.0, place="train.json, line 3")], make_model())
    record(tmp_path / "short.wav", noise)
    with pytest.raises(InputError, match=r"short.wav has no samples at 2 s"):
        check_recordings([Utterance(tmp_path / "short.wav", "yes", 1.0, offset=2.0)], make_model())
