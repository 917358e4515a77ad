"""A model that streams, people with adapters, and what they say."""

from collections.abc import Callable

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import DictConfig

from nemo_ds2_adapters import AdapterBank
from tests.conftest import MEL_BANDS, SAMPLE_RATE, randomise
from tests.fixtures import Attach

Speech = Callable[..., torch.Tensor]
STREAMING = {
    "_target_": "nemo_ds2_adapters.modules.StreamingMelPreprocessor",
    "normalize": None,
    "feature_mean": [-6.0] * MEL_BANDS,
    "feature_std": [2.0] * MEL_BANDS,
}


@pytest.fixture
def make_streaming(model_config: Callable[..., DictConfig]) -> Callable[..., EncDecCTCModel]:
    """Builder of tiny forward-only models; takes options of the encoder."""

    def make(**encoder: object) -> EncDecCTCModel:
        cfg = model_config(encoder={"bidirectional": False, "lookahead_context": 3, "d_model": 6, **encoder})
        cfg.preprocessor.update(STREAMING)
        torch.manual_seed(0)
        model = EncDecCTCModel(cfg=cfg)
        randomise(model)
        with torch.no_grad():  # so that units follow each other quickly, blanks among them
            model.decoder.output.weight.mul_(12.0)
        return model.eval()

    return make


@pytest.fixture
def model(make_streaming: Callable[..., EncDecCTCModel]) -> EncDecCTCModel:
    return make_streaming()


@pytest.fixture
def people(model: EncDecCTCModel, attach: Attach) -> list[str]:
    """Forty adapters of the model, by name."""
    return attach(model, "first", "last", "all", "head", each=10)


@pytest.fixture
def bank(model: EncDecCTCModel, people: list[str]) -> AdapterBank:
    return AdapterBank(model)


@pytest.fixture
def speech() -> Speech:
    """Noise of a number of seconds whose loudness goes up and down."""

    def make(seconds: float, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        count = round(seconds * SAMPLE_RATE)
        loudness = torch.rand(count // 1000 + 1, generator=generator).repeat_interleave(1000)[:count]
        return loudness * torch.randn(count, generator=generator)

    return make
