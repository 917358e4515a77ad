"""Tiny models and tiny recordings that all tests share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import settings
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters.layers import MaskedBatchNorm
from nemo_ds2_adapters.modules import DeepSpeech2Encoder

pytest_plugins = ["tests.foreign", "tests.fixtures"]  # what exceptions leave public functions; adapters

SAMPLE_RATE = 16000  # Hz
MEL_BANDS = 16
VOCABULARY = [" ", *"abcdefghijklmnopqrstuvwxyz", "'"]
SENTENCES = ("ab", "yes", "no a", "one two")  # of the recordings, which are noise

torch.set_num_threads(1)  # fastest for tiny models, and threads that wait for each other stall on a busy machine
torch.backends.cudnn.allow_tf32 = False  # 10 bits of mantissa would need other tolerances on a GPU
settings.register_profile("reproducible", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("reproducible")

EncoderMaker = Callable[..., DeepSpeech2Encoder]
ModelMaker = Callable[..., EncDecCTCModel]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, torch finds none here"))


def randomise(module: nn.Module) -> None:
    """Give batch norms statistics, scales and shifts as if trained, so that leaving one out shows."""
    for norm in module.modules():
        if isinstance(norm, MaskedBatchNorm):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_encoder() -> EncoderMaker:
    """Builder of tiny encoders in training mode; takes the options of `DeepSpeech2Encoder`."""

    def make(cls: type[DeepSpeech2Encoder] = DeepSpeech2Encoder, **options: Any) -> DeepSpeech2Encoder:
        torch.manual_seed(0)
        encoder = cls(**{"feat_in": MEL_BANDS, "n_layers": 2, "d_model": 8, "conv_channels": [2, 2], **options})
        randomise(encoder)
        return encoder

    return make


@pytest.fixture
def model_config() -> Callable[..., DictConfig]:
    """Builder of model configs; `encoder` and `decoder` change single options of these sections."""

    def make(
        encoder: dict[str, Any] | None = None, decoder: dict[str, Any] | None = None, adapters: bool = True
    ) -> DictConfig:
        return OmegaConf.create(
            {
                "sample_rate": SAMPLE_RATE,
                "labels": VOCABULARY,
                "preprocessor": {
                    "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
                    "sample_rate": SAMPLE_RATE,
                    "features": MEL_BANDS,
                    "window_size": 0.025,  # seconds
                    "window_stride": 0.01,  # seconds
                    "n_fft": 512,
                    "dither": 0.00001,
                    "pad_to": 0,
                },
                "encoder": {
                    "_target_": f"nemo_ds2_adapters.modules.DeepSpeech2Encoder{'Adapter' if adapters else ''}",
                    "feat_in": MEL_BANDS,
                    "n_layers": 2,
                    "d_model": 8,
                    "conv_channels": [2, 2],
                    "dropout": 0.1,
                    **(encoder or {}),
                },
                "decoder": {
                    "_target_": "nemo_ds2_adapters.modules.DeepSpeech2Decoder",
                    "feat_in": None,
                    "num_classes": -1,
                    "vocabulary": VOCABULARY,
                    "norm": "batch",
                    **(decoder or {}),
                },
                "decoding": {"strategy": "greedy_batch"},
                "optim": {"name": "adamw", "lr": 0.01},
            }
        )

    return make


@pytest.fixture
def make_model(model_config: Callable[..., DictConfig]) -> ModelMaker:
    """Builder of tiny CTC models in eval mode; takes what `model_config` takes."""

    def make(**sections: Any) -> EncDecCTCModel:
        torch.manual_seed(0)
        model = EncDecCTCModel(cfg=model_config(**sections))
        randomise(model)
        return model.eval()

    return make


@pytest.fixture
def model(make_model: ModelMaker) -> EncDecCTCModel:
    """Two recurrent layers with dropout, batch norm in the decoder, ready for adapters."""
    return make_model()


@pytest.fixture
def disturb() -> Callable[[nn.Module, str], None]:
    """Gives the weights of the named adapter values at random: a new adapter changes nothing."""

    def change(module: nn.Module, name: str) -> None:
        for path, parameter in module.named_parameters():
            if f"adapter_layer.{name}." in path:
                nn.init.normal_(parameter, std=0.3)

    return change


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NeMo manifest of four recordings of 0.4 to 1 s, WAV and FLAC."""
    folder = tmp_path_factory.mktemp("recordings")
    random = np.random.default_rng(0)
    lines = []
    for i, text in enumerate(SENTENCES):
        seconds = 0.4 + 0.2 * i
        path = folder / f"utterance{i}.{'flac' if i % 2 else 'wav'}"
        soundfile.write(path, 0.1 * random.standard_normal(round(seconds * SAMPLE_RATE)), SAMPLE_RATE)
        lines.append(json.dumps({"audio_filepath": str(path), "duration": seconds, "text": text}))
    path = folder / "recordings.json"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Three sound signals of 0.2 to 0.4 s, as a model's forward takes them (in training it dithers them in place)."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([3200, 6400, 4500])  # samples
    signal = 0.1 * torch.randn(3, int(lengths.max()), generator=generator)
    return {"input_signal": signal, "input_signal_length": lengths}
