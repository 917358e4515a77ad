"""What is said about recordings before training."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_ds2_adapters.data.findings import check_recordings
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
    utterances = [record(tmp_path / f"{i}.wav", noise) for i in range(3)]
    assert list(check_recordings("train", utterances, make_model())) == ["train: 3 utterances, 3.0 s"]


def test_findings_are_counted_with_an_example(tmp_path: Path, noise: np.ndarray, make_model) -> None:
    utterances = [
        record(tmp_path / "good.wav", noise),
        record(tmp_path / "loud.wav", np.clip(noise * 100, -1, 1)),
        record(tmp_path / "still.wav", noise * 1e-4),
        record(tmp_path / "fast.wav", noise[: SAMPLE_RATE // 10], text="far too many words"),
        record(tmp_path / "double.wav", noise[: SAMPLE_RATE // 10], text="aaaaa"),  # 5 units need 9 of 5 frames
    ]
    summary, *findings = check_recordings("train", utterances, make_model())
    assert summary == "train: 5 utterances, 3.2 s"
    assert findings == [
        "  clipped: 1 of 5, for example loud.wav",
        "  silent: 1 of 5, for example still.wav",
        "  transcript longer than its frames allow: 2 of 5, for example fast.wav, double.wav",
    ]


def test_broken_files_are_named(tmp_path: Path, noise: np.ndarray, make_model) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"train: .*text.wav cannot be read as audio"):
        list(check_recordings("train", [Utterance(tmp_path / "text.wav", "yes", 1.0)], make_model()))
    record(tmp_path / "short.wav", noise)
    with pytest.raises(InputError, match="short.wav"):
        list(check_recordings("train", [Utterance(tmp_path / "short.wav", "yes", 1.0, offset=2.0)], make_model()))
