"""Tiny models built by the original's arguments."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from torch import Tensor

from nemo_ds2_adapters.compat import build_deepspeech2

SIZES = {"input_dim": 16, "num_rnn_layers": 1, "rnn_hidden_dim": 4, "adapter_hidden_dims": [5, 3]}


@pytest.fixture
def build() -> Callable[..., EncDecCTCModel]:
    """Builder of models in eval mode; takes the arguments of `build_deepspeech2`, and a seed."""

    def make(seed: int = 0, **arguments: Any) -> EncDecCTCModel:
        torch.manual_seed(seed)
        return build_deepspeech2(**{**SIZES, **arguments}).eval()

    return make


@pytest.fixture
def outputs(batch: dict[str, Tensor]) -> Callable[[EncDecCTCModel], Tensor]:
    """What a model makes of three sound signals: log probabilities `[B, T, V]`."""

    def run(model: EncDecCTCModel) -> Tensor:
        with torch.no_grad():
            return model(**batch)[0]

    return run
