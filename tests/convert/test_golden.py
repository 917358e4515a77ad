"""Checkpoints that the other toolkits' own code wrote, and the outputs it gave."""

import os
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters import convert_checkpoint

GOLDEN = Path(os.environ.get("DS2_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"needs the golden checkpoints, none in {GOLDEN}")


@pytest.mark.parametrize("name", ["bi_gru", "bi_lstm", "uni_gru"])
def test_deepspeech_pytorch(name: str, tmp_path: Path) -> None:
    path = GOLDEN / f"deepspeech_pytorch_{name}.ckpt"
    convert_checkpoint(path, tmp_path / "out.nemo")
    golden = torch.load(path.with_suffix(".io.pt"), weights_only=True)
    expected = torch.cat([golden["probs"][..., 1:], golden["probs"][..., :1]], dim=-1)
    assert_same(tmp_path / "out.nemo", golden["inputs"].squeeze(1), golden, expected)


@pytest.mark.parametrize("name", ["gru_bi", "gru_uni", "lstm_bi"])
@pytest.mark.filterwarnings("ignore:.*features that the model was trained on")
def test_kospeech(name: str, tmp_path: Path) -> None:
    path = GOLDEN / f"kospeech_{name}.pt"
    golden = torch.load(path, weights_only=True)
    labels = [chr(ord("가") + i) for i in range(golden["log_probs"].shape[-1] - 1)]
    convert_checkpoint(path, tmp_path / "out.nemo", labels=labels)
    assert_same(tmp_path / "out.nemo", golden["inputs"].transpose(1, 2), golden, golden["log_probs"].exp())


def assert_same(nemo: Path, features: torch.Tensor, golden: dict, expected: torch.Tensor) -> None:
    model = ASRModel.restore_from(str(nemo), map_location="cpu").eval()
    with torch.no_grad():
        log_probs, lengths, _ = model(processed_signal=features, processed_signal_length=golden["input_lengths"])
    assert lengths.tolist() == golden["output_lengths"].tolist()
    for row, length in enumerate(lengths):
        torch.testing.assert_close(log_probs[row, :length], expected[row, :length].log(), rtol=0, atol=1e-4)
