"""Models of other toolkits, written anew in plain torch, and the files those toolkits would write of them."""

import enum
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

RNNS = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
LENGTHS = (61, 40, 17)  # frames


def convolutions(channels: int, bias: bool, activation: Callable[[], nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, channels, (41, 11), (2, 2), (20, 5), bias=bias), nn.BatchNorm2d(channels), activation(),
        nn.Conv2d(channels, channels, (21, 11), (2, 1), (10, 5), bias=bias), nn.BatchNorm2d(channels), activation(),
    )  # fmt: skip


def rnn_input(feat_in: int, channels: int) -> int:
    return channels * ((feat_in + 1) // 2 + 1 >> 1)


class Reference(nn.Module):
    """Runs utterance by utterance, so that it needs neither masks nor packing."""

    @torch.no_grad()
    def log_probs(self, features: Tensor) -> Tensor:
        """`[D, T]` -> `[T', classes]`, classes in the original's order."""
        x = self.convolved(features[None, None])
        return self.head(self.recur(x.flatten(1, 2).transpose(1, 2)))[0].log_softmax(-1)


class DeepSpeechPytorch(Reference):
    def __init__(
        self, rnn_type="gru", bidirectional=True, layers=2, hidden=6, classes=5, bins=81, channels=4, context=3
    ):
        super().__init__()
        self.conv = nn.ModuleDict({"seq_module": convolutions(channels, True, lambda: nn.Hardtanh(0, 20))})
        self.rnns = nn.ModuleList()
        for i in range(layers):
            width = hidden if i else rnn_input(bins, channels)
            layer = {"rnn": RNNS[rnn_type](width, hidden, bidirectional=bidirectional, batch_first=True)}
            if i:
                layer["batch_norm"] = nn.ModuleDict({"module": nn.BatchNorm1d(width)})
            self.rnns.append(nn.ModuleDict(layer))
        if not bidirectional:
            depthwise = nn.Conv1d(hidden, hidden, context, groups=hidden, bias=False)
            self.lookahead = nn.Sequential(nn.ModuleDict({"conv": depthwise}))
        head = nn.Sequential(nn.BatchNorm1d(hidden), nn.Linear(hidden, classes, bias=False))
        self.fc = nn.Sequential(nn.ModuleDict({"module": head}))

    def convolved(self, x: Tensor) -> Tensor:
        return self.conv["seq_module"](x)

    def recur(self, x: Tensor) -> Tensor:
        for layer in self.rnns:
            if "batch_norm" in layer:
                x = layer["batch_norm"]["module"](x[0])[None]
            x, _ = layer["rnn"](x)
            if layer["rnn"].bidirectional:
                x = x.unflatten(-1, (2, -1)).sum(-2)
        if hasattr(self, "lookahead"):
            conv = self.lookahead[0]["conv"]
            x = conv(nn.functional.pad(x.mT, (0, conv.kernel_size[0] - 1))).mT.clamp(0, 20)
        return x

    def head(self, x: Tensor) -> Tensor:
        return self.fc[0]["module"](x[0])[None]


class KoSpeech(Reference):
    ACTIVATIONS = {"hardtanh": lambda: nn.Hardtanh(0, 20), "gelu": nn.GELU, "swish": nn.SiLU, "relu": nn.ReLU}

    def __init__(
        self,
        rnn_type="gru",
        bidirectional=True,
        layers=2,
        hidden=6,
        classes=5,
        bins=80,
        channels=4,
        activation="hardtanh",
    ):
        super().__init__()
        stack = convolutions(channels, False, self.ACTIVATIONS[activation])
        self.conv = nn.ModuleDict({"conv": nn.ModuleDict({"sequential": stack})})
        self.rnn_layers = nn.ModuleList()
        width = rnn_input(bins, channels)
        for _ in range(layers):
            rnn = RNNS[rnn_type](width, hidden, bidirectional=bidirectional, batch_first=True)
            self.rnn_layers.append(nn.ModuleDict({"batch_norm": nn.BatchNorm1d(width), "rnn": rnn}))
            width = hidden * (1 + bidirectional)
        linear = nn.ModuleDict({"linear": nn.Linear(width, classes, bias=False)})
        self.fc = nn.Sequential(nn.LayerNorm(width), linear)

    def convolved(self, x: Tensor) -> Tensor:
        return self.conv["conv"]["sequential"](x)

    def recur(self, x: Tensor) -> Tensor:
        for layer in self.rnn_layers:
            x, _ = layer["rnn"](layer["batch_norm"](x[0])[None].relu())
        return x

    def head(self, x: Tensor) -> Tensor:
        return self.fc[1]["linear"](self.fc[0](x))


def trained(model: Reference) -> Reference:
    """The model in eval mode with norms that are not neutral, and with outputs that differ clearly."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean, std=0.3)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
        if isinstance(module, nn.RNNBase | nn.Linear):
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.5)
    return model.eval()


@pytest.fixture
def deepspeech_pytorch() -> Callable[..., Reference]:
    return lambda **options: trained(DeepSpeechPytorch(**options))


@pytest.fixture
def kospeech() -> Callable[..., Reference]:
    return lambda **options: trained(KoSpeech(**options))


@pytest.fixture
def assert_same() -> Callable[..., None]:
    """Compares a converted model with its original, whose class number `blank` is the blank, on real frames."""

    def check(model: Any, original: Reference, bins: int, blank: int) -> None:
        features = torch.randn(len(LENGTHS), bins, max(LENGTHS))
        with torch.no_grad():
            log_probs, lengths, _ = model(processed_signal=features, processed_signal_length=torch.tensor(LENGTHS))
        for row, length in enumerate(LENGTHS):
            expected = original.log_probs(features[row, :, :length])
            expected = torch.cat([expected[:, :blank], expected[:, blank + 1 :], expected[:, blank : blank + 1]], -1)
            assert lengths[row] == len(expected)
            torch.testing.assert_close(log_probs[row, : lengths[row]], expected, rtol=0, atol=1e-4)

    return check


@pytest.fixture
def foreign_classes() -> Iterator[Callable[..., dict[str, Any]]]:
    """Maker of `hyper_parameters` with objects of deepspeech.pytorch's classes; gone when `forget` is called."""
    enums, configs = (types.ModuleType(f"deepspeech_pytorch.{name}") for name in ("enums", "configs.train_config"))
    names = ("deepspeech_pytorch.enums", "deepspeech_pytorch.configs.train_config")

    class RNNType(enum.Enum):
        lstm = nn.LSTM
        rnn = nn.RNN
        gru = nn.GRU

    class SpectrogramWindow(enum.Enum):
        hamming = "hamming"
        hann = "hann"

    @dataclass
    class SpectConfig:
        sample_rate: int = 16000
        window_size: float = 0.02
        window_stride: float = 0.01
        window: SpectrogramWindow = SpectrogramWindow.hamming

    model_config = make_dataclass(
        "BiDirectionalConfig",
        [("rnn_type", RNNType, field(default=RNNType.lstm)), ("hidden_size", int, field(default=6))],
    )
    for module, classes in ((enums, (RNNType, SpectrogramWindow)), (configs, (SpectConfig, model_config))):
        for cls in classes:
            cls.__module__, cls.__qualname__ = module.__name__, cls.__name__
            setattr(module, cls.__name__, cls)

    def make(labels: list[str], rnn_type: str, structured: bool = True, **spectrogram: Any) -> dict[str, Any]:
        window = SpectrogramWindow(spectrogram.pop("window", "hamming"))
        spect_cfg, model_cfg = SpectConfig(window=window, **spectrogram), model_config(rnn_type=RNNType[rnn_type])
        if structured:
            spect_cfg, model_cfg = OmegaConf.structured(spect_cfg), OmegaConf.structured(model_cfg)
        return {"labels": labels, "model_cfg": model_cfg, "spect_cfg": spect_cfg, "precision": 32}

    packages = {"deepspeech_pytorch": types.ModuleType("deepspeech_pytorch")}
    packages["deepspeech_pytorch.configs"] = types.ModuleType("deepspeech_pytorch.configs")
    sys.modules.update(packages | dict(zip(names, (enums, configs))))
    make.forget = lambda: [sys.modules.pop(name, None) for name in (*packages, *names)]  # type: ignore[attr-defined]
    yield make
    make.forget()  # type: ignore[attr-defined]


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(content: Any, name: str = "checkpoint.pt", **options: Any) -> Path:
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return write
