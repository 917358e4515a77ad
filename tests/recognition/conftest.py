"""A model that writes something, and recordings for it."""

import json
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel


@pytest.fixture
def talkative(model: EncDecCTCModel, attach) -> EncDecCTCModel:
    """A model that writes something, and other things with the adapters `first_0` and `own_head_0`."""
    attach(model, "first", "own_head")
    for parameter in (*model.encoder.layers.parameters(), model.decoder.output.weight):
        torch.nn.init.normal_(parameter)
    return model


@pytest.fixture
def paths(manifest: Path) -> list[str]:
    return [json.loads(line)["audio_filepath"] for line in manifest.read_text().splitlines()]
