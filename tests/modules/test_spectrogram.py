"""The log spectrogram, compared with librosa, which the original's features were computed by."""

from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import OmegaConf
from torch import Tensor

from nemo_ds2_adapters.modules import LogSpectrogramPreprocessor, LogSpectrogramPreprocessorConfig

TOLERANCE = 1e-4
# samples; no multiple of the stride: librosa 0.11 then gets one reflected sample of the last frame wrong, because it
# pads the end of the signal apart from the rest (`test_lengths` pads all of it, as librosa did before 0.10)
LENGTHS = (4321, 1655, 999)


@pytest.fixture
def signals() -> tuple[Tensor, Tensor]:
    """Noise of unequal lengths and levels, with other noise beyond the end of the shorter ones."""
    lengths = torch.tensor(LENGTHS)
    return torch.randn(3, max(LENGTHS)) * torch.tensor([[0.3], [0.02], [1.0]]), lengths


def compute(preprocessor: LogSpectrogramPreprocessor, signal: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    return preprocessor(input_signal=signal, length=lengths)


def with_librosa(signal: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    sample_rate = options.get("sample_rate", 16000)
    n_fft = int(sample_rate * options.get("window_size", 0.02))
    spectrum = librosa.stft(
        signal,
        n_fft=n_fft,
        hop_length=int(sample_rate * options.get("window_stride", 0.01)),
        win_length=n_fft,
        window=options.get("window", "hamming"),
        center=options.get("center", True),
        pad_mode=options.get("pad_mode", "reflect"),
    )
    features = np.log1p(np.abs(spectrum))
    if options.get("normalize", True):
        features = (features - features.mean()) / features.std(ddof=options.get("std_correction", 1))
    return features


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": "hann", "pad_mode": "constant"},
        {"window": "blackman", "normalize": False},
        {"window": "bartlett", "center": False, "std_correction": 0},
        {"sample_rate": 8000, "window_size": 0.032, "window_stride": 0.0125},
        {"sample_rate": 22050, "window_size": 0.02},  # 441 samples, an odd number
    ],
)
def test_matches_librosa(signals: tuple[Tensor, Tensor], options: dict[str, Any]) -> None:
    preprocessor = LogSpectrogramPreprocessor(**options)
    features, frames = compute(preprocessor, *signals)
    for row, length in enumerate(LENGTHS):
        expected = torch.from_numpy(with_librosa(signals[0][row, :length].numpy(), options))
        assert expected.shape == (preprocessor.feat_out, frames[row])
        torch.testing.assert_close(features[row, :, : frames[row]], expected, rtol=0, atol=TOLERANCE)
        assert features[row, :, frames[row] :].eq(0).all()


@pytest.mark.parametrize("options", [{}, {"pad_mode": "constant"}, {"center": False}])
def test_independent_of_the_rest_of_the_batch(signals: tuple[Tensor, Tensor], options: dict[str, Any]) -> None:
    preprocessor = LogSpectrogramPreprocessor(**options)
    features, frames = compute(preprocessor, *signals)
    for row, length in enumerate(LENGTHS):
        alone, own_frames = compute(preprocessor, signals[0][row : row + 1, :length], torch.tensor([length]))
        assert own_frames[0] == frames[row]
        torch.testing.assert_close(features[row, :, : frames[row]], alone[0], rtol=0, atol=1e-5)


def test_gradients_reach_the_signal_and_real_samples_only(signals: tuple[Tensor, Tensor]) -> None:
    signal, lengths = signals
    signal.requires_grad_()
    features, _ = compute(LogSpectrogramPreprocessor(), signal, lengths)
    features.square().sum().backward()
    for row, length in enumerate(LENGTHS):
        assert signal.grad[row, :length].ne(0).any() and signal.grad[row, length:].eq(0).all()
    assert signal.grad.isfinite().all()


def test_gradients_are_right() -> None:
    preprocessor = LogSpectrogramPreprocessor(sample_rate=100, window_size=0.08, window_stride=0.04)
    signal = torch.randn(2, 20, dtype=torch.float64, requires_grad=True)

    def features(x: Tensor) -> Tensor:
        return compute(preprocessor, x, torch.tensor([20, 13]))[0]

    numeric = torch.zeros_like(signal)
    direction = torch.randn_like(features(signal))
    for i in range(2):
        for j in range(20):
            step = torch.zeros_like(signal)
            step[i, j] = 1e-2
            numeric[i, j] = ((features(signal + step) - features(signal - step)) * direction).sum() / 2e-2
    (gradient,) = torch.autograd.grad((features(signal) * direction).sum(), signal)
    torch.testing.assert_close(gradient, numeric.detach(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("samples", [0, 1, 2, 100, 159, 160, 161, 319, 320, 321, 1600])
def test_lengths(samples: int) -> None:
    signal = torch.randn(1, 1700)
    for options in ({}, {"pad_mode": "constant"}):
        features, frames = compute(LogSpectrogramPreprocessor(**options), signal, torch.tensor([samples]))
        assert frames.tolist() == [samples // 160 + 1 if samples else 0]
        assert features.isfinite().all()
        if samples > 1:
            padded = np.pad(signal[0, :samples].numpy(), 160, mode=options.get("pad_mode", "reflect"))
            expected = torch.from_numpy(with_librosa(padded, {"center": False}))
            torch.testing.assert_close(features[0, :, : frames[0]], expected, rtol=0, atol=TOLERANCE)
    _, frames = compute(LogSpectrogramPreprocessor(center=False), signal, torch.tensor([samples]))
    assert frames.tolist() == [(samples - 320) // 160 + 1 if samples >= 320 else 0]


def test_silence_stays_finite() -> None:
    signal = torch.zeros(1, 1000, requires_grad=True)
    features, _ = compute(LogSpectrogramPreprocessor(), signal, torch.tensor([1000]))
    features.sum().backward()
    assert features.eq(0).all() and signal.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "kaiser"}, "window='kaiser'"),
        ({"pad_mode": "edge"}, "pad_mode='edge'"),
        ({"window_size": 0.0}, "window_size=0.0"),
        ({"window_stride": 1e-6}, "window_stride=1e-06"),
        ({"std_correction": 2}, "std_correction=2"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogSpectrogramPreprocessor(**options)


def test_in_a_model(model_config, batch: dict[str, Tensor], manifest: Path, tmp_path: Path) -> None:
    config = model_config(encoder={"feat_in": 161})
    config.preprocessor = OmegaConf.structured(LogSpectrogramPreprocessorConfig)
    model = EncDecCTCModel(cfg=config).eval()
    model.save_to(str(tmp_path / "model.nemo"))
    restored = EncDecCTCModel.restore_from(str(tmp_path / "model.nemo"), map_location="cpu").eval()
    assert type(restored.preprocessor) is LogSpectrogramPreprocessor
    with torch.no_grad():
        assert torch.equal(restored(**batch)[0], model(**batch)[0])
    paths = sorted(str(path) for path in manifest.parent.glob("utterance*"))
    assert len(restored.transcribe(paths, batch_size=4, verbose=False)) == 4


@pytest.mark.gpu
def test_on_a_gpu(signals: tuple[Tensor, Tensor]) -> None:
    signal, lengths = signals
    expected, _ = compute(LogSpectrogramPreprocessor(), signal, lengths)
    features, _ = compute(LogSpectrogramPreprocessor().cuda(), signal.cuda(), lengths.cuda())
    torch.testing.assert_close(features.cpu(), expected, rtol=0, atol=TOLERANCE)
