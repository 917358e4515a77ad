"""A converted model goes through the scripts like any other."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, open_dict
from torch import nn

from nemo_ds2_adapters import convert_checkpoint, list_adapters

TRAIN, EVALUATE = "asr_adapters/train_asr_adapter.py", "asr_adapters/eval_asr_adapter.py"
LABELS = ["_", *"'ABCDEFGHIJKLMNOPQRSTUVWXYZ", " "]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A state dict with the names of deepspeech.pytorch, of a forward-only GRU."""
    weights = {}
    modules = {
        "conv.seq_module.0": nn.Conv2d(1, 2, (41, 11)), "conv.seq_module.1": nn.BatchNorm2d(2),
        "conv.seq_module.3": nn.Conv2d(2, 2, (21, 11)), "conv.seq_module.4": nn.BatchNorm2d(2),
        "rnns.0.rnn": nn.GRU(2 * 41, 8), "lookahead.0.conv": nn.Conv1d(8, 8, 4, groups=8, bias=False),
        "fc.0.module.0": nn.BatchNorm1d(8), "fc.0.module.1": nn.Linear(8, len(LABELS), bias=False),
    }  # fmt: skip
    for name, module in modules.items():
        weights |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    torch.save(weights, tmp_path / "ds2.pt")
    return tmp_path / "ds2.pt"


def test_adapt_save_restore_evaluate_transcribe(
    call_script, restore, config: DictConfig, checkpoint: Path, manifest: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    converted = convert_checkpoint(checkpoint, tmp_path / "converted.nemo", labels=LABELS)
    with open_dict(config):
        config.model.nemo_model = str(tmp_path / "converted.nemo")
        config.exp_manager.version = "run"
        for section in ("train_ds", "validation_ds", "test_ds"):
            config.model[section].num_workers = 0
    call_script(TRAIN, config.copy())
    (path,) = (tmp_path / "experiments").rglob("*.nemo")
    config.model.nemo_model = str(path)
    call_script(EVALUATE, config)
    scores = [json.loads(line) for line in (tmp_path / "eval_user_john.jsonl").read_text().splitlines()]
    assert [score["reference"] for score in scores] == [
        json.loads(line)["text"] for line in manifest.read_text().splitlines()
    ]

    adapted = restore(path)
    assert list_adapters(adapted) == ["user_john"]
    assert adapted.cfg.preprocessor._target_ == "nemo_ds2_adapters.modules.LogSpectrogramPreprocessor"
    recordings = sorted(str(audio) for audio in manifest.parent.glob("utterance*"))
    assert len(adapted.transcribe(recordings, batch_size=2, verbose=False)) == len(recordings)
    adapted.set_enabled_adapters(enabled=False)
    base = dict(converted.state_dict())
    assert all(torch.equal(value, base[key]) for key, value in adapted.state_dict().items() if key in base)
