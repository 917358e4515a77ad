"""A model that streams, people with adapters, and what they say."""

import math
from collections.abc import Callable

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters import AdapterBank, transcribe
from tests.conftest import SAMPLE_RATE
from tests.fixtures import Attach

Speech = Callable[..., torch.Tensor]


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
    """Noise of a number of seconds that changes its loudness and its colour every 1/16 s."""

    def make(seconds: float, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        count = round(seconds * SAMPLE_RATE)
        parts = []
        for _ in range(count // 1000 + 1):
            loudness, shift = torch.rand(2, generator=generator)
            noise = torch.randn(1000, generator=generator)
            parts.append(0.5 * loudness * (noise + (2 * shift - 1) * noise.roll(1)))
        return torch.cat(parts)[:count]

    return make


@pytest.fixture
def whole(model: EncDecCTCModel, bank: AdapterBank) -> Callable[..., str]:
    """What a recording is recognised as offline, with somebody's adapter."""

    def text(recording: torch.Tensor, user: str | None = None) -> str:
        return transcribe(model, recording, [user], bank, max_seconds=math.inf, progress=False)[0]

    return text


@pytest.fixture
def quiet(model: EncDecCTCModel) -> EncDecCTCModel:
    """The model, to which silence is blanks."""
    silence = torch.zeros(1, 10 * SAMPLE_RATE)
    with torch.no_grad():
        log_probs, *_ = model(input_signal=silence, input_signal_length=torch.tensor([silence.shape[1]]))
        inside = log_probs[0, :-20]  # at its end it hears what is not there
        model.decoder.output.bias[-1] += (inside.max(-1).values - inside[:, -1]).max() + 0.1
    return model
