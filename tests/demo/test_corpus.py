"""The demo's corpus on disk."""

import ast
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("espeakng_loader", reason="needs the [demo] extra")

from demo import corpus
from demo.corpus import (
    BASE_VOICES,
    DEMO_USERS,
    LEVEL,
    VALIDATION_VOICES,
    Channel,
    Speaker,
    Utterance,
    main,
    write_base_corpus,
    write_corpus,
    write_user_corpora,
)
from demo.voices import SAMPLE_RATE, Synthesizer


def read_manifest(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_user_corpora_match_their_manifests(tmp_path: Path) -> None:
    write_user_corpora(tmp_path, train=4, validation=2, test=3)
    for user in DEMO_USERS:
        texts: list[str] = []
        for split, count in (("train", 4), ("validation", 2), ("test", 3)):
            entries = read_manifest(tmp_path / user.name / f"{split}.json")
            assert len(entries) == count
            for entry in entries:
                audio, rate = soundfile.read(tmp_path / user.name / entry["audio_filepath"])
                assert rate == SAMPLE_RATE and audio.ndim == 1
                assert entry["duration"] == pytest.approx(audio.size / SAMPLE_RATE)
                assert entry["speaker"] == user.name
                assert 0.3 * LEVEL < np.sqrt(np.mean(audio**2)) < 1.1 * LEVEL
                assert np.abs(audio).max() < 0.99
                texts.append(entry["text"])
        assert len(texts) == len(set(texts))


def test_default_users_have_about_two_minutes_of_training_speech(tmp_path: Path) -> None:
    main(["users", str(tmp_path)])
    for user in DEMO_USERS:
        train = read_manifest(tmp_path / user.name / "train.json")
        assert 90 < sum(entry["duration"] for entry in train) < 180  # seconds


def test_base_corpus_keeps_validation_apart(tmp_path: Path) -> None:
    main(["base", str(tmp_path), "--utterances", "20", "--validation", "5", "--seed", "3"])
    train, validation = (read_manifest(tmp_path / f"{split}.json") for split in ("train", "validation"))
    assert (len(train), len(validation)) == (20, 5)
    for key in ("text", "speaker"):
        assert {entry[key] for entry in train}.isdisjoint(entry[key] for entry in validation)


def test_same_seed_writes_the_same_bytes_again(tmp_path: Path) -> None:
    for name, seed in (("first", 1), ("second", 1), ("other", 2)):
        write_base_corpus(tmp_path / name, utterances=6, validation=2, seed=seed)
    first = digests(tmp_path / "first")
    assert len(first) == 10  # 8 recordings, 2 manifests
    assert first == digests(tmp_path / "second")
    assert first != digests(tmp_path / "other")
    write_base_corpus(tmp_path / "first", utterances=6, validation=2, seed=1)
    assert digests(tmp_path / "first") == first


def test_recording_does_not_depend_on_the_rest_of_the_corpus(tmp_path: Path) -> None:
    utterances = [Utterance(DEMO_USERS[0], text) for text in ("yes", "enter four", "no")]
    write_corpus(tmp_path / "long", {"train": utterances})
    write_corpus(tmp_path / "short", {"other": utterances[:1], "train": utterances[:2]})
    name = f"train/{DEMO_USERS[0].name}-00001.flac"
    assert (tmp_path / "long" / name).read_bytes() == (tmp_path / "short" / name).read_bytes()


def test_users_share_neither_voice_nor_accent_nor_variant_with_the_base() -> None:
    assert len(BASE_VOICES) == len(set(BASE_VOICES))
    parts = {part for voice in BASE_VOICES for part in voice.split("+")}
    for user in DEMO_USERS:
        assert parts.isdisjoint(user.voice.split("+"))
    assert set(VALIDATION_VOICES) < set(BASE_VOICES)


def test_every_voice_exists() -> None:
    synthesizer = Synthesizer()
    for voice in (*BASE_VOICES, *(user.voice for user in DEMO_USERS)):
        assert synthesizer.phonemes("yes", voice)


def test_unknown_voice_leaves_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="en-us\\+nosuch"):
        write_corpus(tmp_path, {"train": [Utterance(Speaker("x", "en-us+nosuch"), "yes")]})
    assert not (tmp_path / "train.json").exists()


def energy_db(audio: np.ndarray, low_hz: float, high_hz: float) -> float:
    spectrum = np.abs(np.fft.rfft(audio)) ** 2
    hertz = np.fft.rfftfreq(audio.size, 1 / SAMPLE_RATE)
    return float(10 * np.log10(spectrum[(hertz >= low_hz) & (hertz < high_hz)].sum()))


@pytest.fixture(scope="module")
def white() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE).astype(np.float32)


def test_channel_passes_its_band_and_lifts_its_resonance(white: np.ndarray) -> None:
    flat = Channel(low_hz=500, high_hz=3000)
    sound = flat.apply(white, np.random.default_rng(1))
    assert sound.dtype == np.float32 and sound.shape == white.shape
    inside = energy_db(sound, 1900, 2400)
    assert energy_db(sound, 4500, 5000) < inside - 20
    assert energy_db(sound, 100, 200) < inside - 20

    resonant = replace(flat, resonance_hz=1500, resonance_db=12).apply(white, np.random.default_rng(1))
    at_peak, beside = (energy_db(resonant, hz, hz + 50) - energy_db(sound, hz, hz + 50) for hz in (1475, 600))
    assert at_peak - beside == pytest.approx(11, abs=1)


def test_channel_adds_noise_at_the_stated_level() -> None:
    pause = np.zeros(SAMPLE_RATE, np.float32)
    tone = np.sin(2 * np.pi * 1000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    sound = Channel(snr_db=20).apply(np.concatenate([pause, tone]), np.random.default_rng(0))
    quiet, loud = sound[:SAMPLE_RATE], sound[SAMPLE_RATE:]
    # The speech level counts the whole utterance: 3 dB below that of its louder half.
    assert 10 * np.log10(np.mean(loud**2) / np.mean(quiet**2)) == pytest.approx(23, abs=1)


def test_reverberation_fills_the_pause_after_the_sound() -> None:
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[100:200] = 1
    rng = np.random.default_rng
    dry, wet = (Channel(snr_db=90, reverberation_s=s).apply(click, rng(0)) for s in (0.0, 0.4))
    assert np.sum(wet[2000:4000] ** 2) > 100 * np.sum(dry[2000:4000] ** 2)


@pytest.mark.parametrize(
    "wrong", [{"low_hz": 0}, {"high_hz": 8000}, {"low_hz": 4000, "high_hz": 3000}, {"reverberation_s": -1}]
)
def test_impossible_channel_is_an_error(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"low_hz|reverberation_s"):
        replace(Channel(), **wrong)


def test_generator_imports_neither_nemo_nor_torch() -> None:
    package = Path(corpus.__file__).parent
    for module in ("__init__", "voices", "sentences", "corpus"):
        imported = set[str]()
        for node in ast.walk(ast.parse((package / f"{module}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
        assert imported.isdisjoint({"nemo", "torch", "lightning"}), module
