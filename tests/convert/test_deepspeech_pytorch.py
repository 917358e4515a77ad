"""deepspeech.pytorch's checkpoints, of models of many kinds."""

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_ds2_adapters import convert_checkpoint

LABELS = ["_", "'", "A", "B", " "]


@pytest.mark.parametrize(
    ("model", "spectrogram"),
    [
        ({"rnn_type": "gru", "layers": 3}, {"sample_rate": 8000}),
        ({"rnn_type": "lstm", "hidden": 5}, {"sample_rate": 8000, "window": "hann"}),
        ({"rnn_type": "rnn", "layers": 1, "bins": 121}, {"sample_rate": 16000, "window_size": 0.015}),
        ({"rnn_type": "lstm", "bidirectional": False, "context": 20}, {"sample_rate": 8000, "window_stride": 0.02}),
        ({"rnn_type": "gru", "bidirectional": False, "context": 1}, {"sample_rate": 8000}),
    ],
)
def test_lightning_checkpoint(
    deepspeech_pytorch, foreign_classes, assert_same, save, tmp_path: Path, model: dict, spectrogram: dict
) -> None:
    original = deepspeech_pytorch(**model)
    settings = foreign_classes(LABELS, model["rnn_type"], **spectrogram)
    state = {"epoch": 3, "state_dict": original.state_dict(), "hyper_parameters": settings}
    path = save(state, "model.ckpt")
    foreign_classes.forget()

    converted = convert_checkpoint(path, tmp_path / "out.nemo")
    assert "deepspeech_pytorch" not in sys.modules
    assert_same(converted, original, model.get("bins", 81), blank=0)
    assert list(converted.decoder.vocabulary) == ["'", "a", "b", " "]
    preprocessor = converted.cfg.preprocessor
    assert preprocessor._target_ == "nemo_ds2_adapters.modules.LogSpectrogramPreprocessor"
    expected = {"window_size": 0.02, "window_stride": 0.01, "window": "hamming", **spectrogram}
    assert {key: preprocessor[key] for key in expected} == expected
    assert converted.encoder.lookahead is None or not model["bidirectional"]


@pytest.mark.parametrize("zipped", [True, False], ids=["torch_1.6", "before_torch_1.6"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_package(deepspeech_pytorch, assert_same, save, tmp_path: Path, zipped: bool, bidirectional: bool) -> None:
    original = deepspeech_pytorch(bidirectional=bidirectional)
    package = {
        "version": "0.0.1",
        "hidden_size": 6,
        "hidden_layers": 2,
        "rnn_type": "gru",
        "bidirectional": bidirectional,
        "audio_conf": {"sample_rate": 8000, "window_size": 0.02, "window_stride": 0.01, "window": "hamming"},
        "labels": "".join(LABELS),
        "state_dict": original.state_dict(),
        "optim_dict": {"state": {}, "param_groups": [{"lr": 3e-4, "params": [0, 1]}]},
        "loss_results": torch.rand(70),
        "meta": None,
    }
    path = save(package, "model.pth", _use_new_zipfile_serialization=zipped)
    assert_same(convert_checkpoint(path, tmp_path / "out.nemo"), original, 81, blank=0)


def test_what_else_a_training_leaves_in_a_file(deepspeech_pytorch, assert_same, save, tmp_path: Path) -> None:
    original = deepspeech_pytorch()
    rest = {
        "best_wer": np.float64(12.5), "rng": torch.get_rng_state(), "mask": torch.tensor([True]),
        "device": torch.device("cpu"), "folder": Path("a"), "seen": Counter("ab"), "hooks": set(),
        "meta": argparse.Namespace(epochs=3), "shape": torch.Size([2, 3]), "bytes": b"ab",
    }  # fmt: skip
    path = save({"state_dict": original.state_dict(), "labels": LABELS, "audio_conf": {"sample_rate": 8000}, **rest})
    assert_same(convert_checkpoint(path, tmp_path / "out.nemo"), original, 81, blank=0)


def test_settings_that_are_no_config_but_objects(
    deepspeech_pytorch, foreign_classes, assert_same, save, tmp_path: Path
) -> None:
    original = deepspeech_pytorch()
    settings = foreign_classes(LABELS, "gru", structured=False, sample_rate=8000)
    path = save({"state_dict": original.state_dict(), "hyper_parameters": settings})
    foreign_classes.forget()
    assert_same(convert_checkpoint(path, tmp_path / "out.nemo"), original, 81, blank=0)


def test_options_in_place_of_settings(deepspeech_pytorch, assert_same, save, tmp_path: Path) -> None:
    original = deepspeech_pytorch(rnn_type="lstm")
    parallel = {f"module.{key}": value for key, value in original.state_dict().items()}
    converted = convert_checkpoint(
        save(parallel),
        tmp_path / "out.nemo",
        labels=["a", "b", "c", "d"],
        blank_index=2,
        rnn_type="lstm",
        bidirectional=True,
        activation="hardtanh",
        features={"sample_rate": 8000, "window": "blackman", "pad_mode": "constant"},
    )
    assert_same(converted, original, 81, blank=2)
    assert list(converted.decoder.vocabulary) == ["a", "b", "c", "d"]
    assert converted.cfg.preprocessor.window == "blackman" and converted.cfg.preprocessor.pad_mode == "constant"


def test_batch_norms_without_counters(deepspeech_pytorch, assert_same, save, tmp_path: Path) -> None:
    original = deepspeech_pytorch()
    weights = {key: value for key, value in original.state_dict().items() if "num_batches" not in key}
    options = {"labels": LABELS, "features": {"sample_rate": 8000}}
    assert_same(convert_checkpoint(save(weights), tmp_path / "out.nemo", **options), original, 81, blank=0)


def test_case_of_labels(deepspeech_pytorch, save, tmp_path: Path) -> None:
    path = save(deepspeech_pytorch().state_dict())
    options = {"labels": LABELS, "features": {"sample_rate": 8000}, "keep_case": True}
    assert list(convert_checkpoint(path, tmp_path / "out.nemo", **options).decoder.vocabulary) == ["'", "A", "B", " "]
