"""The base model: our modules in NeMo's CTC model."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.collections.asr.modules import ConvASRDecoder
from omegaconf import OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters.modules import DeepSpeech2Encoder, DeepSpeech2EncoderAdapter, MLPAdapterConfig

CHECKOUT = Path(__file__).parents[2]
ModelMaker = Callable[..., EncDecCTCModel]
NEMO_DECODER = {"_target_": "nemo.collections.asr.modules.ConvASRDecoder"}
# Knows NeMo and the package's name, nothing else; leaves the output of the restored model in argv[2].
RESTORE_SCRIPT = """
import sys, torch, nemo_ds2_adapters
from nemo.collections.asr.models import ASRModel
torch.set_num_threads(1)
model = ASRModel.restore_from(sys.argv[1], map_location="cpu").eval()
with torch.no_grad():
    batch = torch.load(sys.argv[2])
    torch.save({"logprobs": model(**batch)[0].clone(), "enabled": model.get_enabled_adapters()}, sys.argv[2])
"""


def saved_and_restored(model: EncDecCTCModel, folder: Path) -> EncDecCTCModel:
    model.save_to(str(folder / "model.nemo"))
    return EncDecCTCModel.restore_from(str(folder / "model.nemo"), map_location="cpu").eval()


def modes(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def manifest_paths(manifest: Path) -> list[str]:
    return sorted(str(path) for path in manifest.parent.glob("utterance*"))


def test_nemo_decoder_works_with_our_encoder(
    make_model: ModelMaker, model_config: Callable, batch: dict[str, Tensor], manifest: Path
) -> None:
    config = model_config()
    config.decoder = {**NEMO_DECODER, "feat_in": None, "num_classes": -1, "vocabulary": config.labels}
    model = EncDecCTCModel(cfg=config).eval()
    assert isinstance(model.decoder, ConvASRDecoder) and model.decoder._feat_in == model.encoder._feat_out
    logprobs, lengths, _ = model(**batch)
    assert logprobs.shape == (3, 21, 29) and lengths.tolist() == [10, 20, 14]
    logprobs.logsumexp(-1).sum().backward()
    model.add_adapter("user", MLPAdapterConfig())
    assert torch.equal(model(**batch)[0], logprobs)
    assert len(model.transcribe(manifest_paths(manifest), batch_size=4, verbose=False)) == 4


@pytest.mark.parametrize("adapters", [True, False])
def test_model_restores_itself(
    make_model: ModelMaker, batch: dict[str, Tensor], tmp_path: Path, adapters: bool
) -> None:
    model = make_model(adapters=adapters)
    restored = saved_and_restored(model, tmp_path)
    assert type(restored.encoder) is (DeepSpeech2EncoderAdapter if adapters else DeepSpeech2Encoder)
    assert torch.equal(restored(**batch)[0], model(**batch)[0])


def test_swap_of_adapter_capable_modules(make_model: ModelMaker, batch: dict[str, Tensor], tmp_path: Path) -> None:
    model = make_model(adapters=False)
    logprobs = model(**batch)[0]
    model.replace_adapter_compatible_modules()
    assert type(model.encoder) is DeepSpeech2EncoderAdapter
    assert model.cfg.encoder._target_ == "nemo_ds2_adapters.modules.DeepSpeech2EncoderAdapter"
    assert torch.equal(model(**batch)[0], logprobs)
    for restored in (saved_and_restored(model, tmp_path), model):
        restored.add_adapter("user", MLPAdapterConfig(layers="all"))
        again = saved_and_restored(restored, tmp_path)
        assert type(again.encoder) is DeepSpeech2EncoderAdapter and again.get_enabled_adapters() == ["user"]
        assert torch.equal(again(**batch)[0], logprobs)


def test_restored_by_a_script_that_imports_the_package_and_nothing_of_it(
    model: EncDecCTCModel, batch: dict[str, Tensor], disturb: Callable, tmp_path: Path
) -> None:
    model.add_adapter("user", MLPAdapterConfig(hidden_dims=[4], layers="all"))
    model.add_adapter("decoder:head", MLPAdapterConfig(hidden_dims=[4]))
    disturb(model, "user")
    disturb(model, "head")
    with torch.no_grad():
        expected = model(**batch)[0]
    model.save_to(str(tmp_path / "model.nemo"))
    torch.save(batch, tmp_path / "exchange.pt")
    command = [sys.executable, "-c", RESTORE_SCRIPT, str(tmp_path / "model.nemo"), str(tmp_path / "exchange.pt")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = torch.load(tmp_path / "exchange.pt")
    assert result["enabled"] == ["head", "user"]
    torch.testing.assert_close(result["logprobs"], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_transcription_leaves_everything_as_it_was(
    model: EncDecCTCModel, batch: dict[str, Tensor], manifest: Path, training: bool, frozen: bool
) -> None:
    with torch.no_grad():
        expected = model(**batch)[0]
    model.add_adapter("user", MLPAdapterConfig(dropout=0.3))
    if frozen:
        model.freeze()
        model.unfreeze_enabled_adapters()
    model.train(training)
    before, gradients = modes(model), {name: p.requires_grad for name, p in model.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.transcribe(manifest_paths(manifest), batch_size=2, verbose=False)
    assert modes(model) == before
    assert {name: p.requires_grad for name, p in model.named_parameters()} == gradients
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    with torch.no_grad():
        assert torch.equal(model.eval()(**batch)[0], expected)


def test_timestamps_use_the_subsampling_factor(model: EncDecCTCModel, manifest: Path) -> None:
    nn.init.zeros_(model.decoder.output.bias)
    model.decoder.output.bias.data[1] = 100.0  # "a" in every frame
    (hypothesis,) = model.transcribe(manifest_paths(manifest)[:1], timestamps=True, verbose=False)
    assert hypothesis.text == "a"
    (word,) = hypothesis.timestamp["word"]
    assert word["start"] == 0.0
    assert word["end"] == pytest.approx(word["end_offset"] * 2 * 0.01)  # frames of 10 ms, halved


def test_config_of_the_model_is_plain(model: EncDecCTCModel) -> None:
    model.add_adapter("user", MLPAdapterConfig())
    text = OmegaConf.to_yaml(model.cfg)
    assert "!!python" not in text and OmegaConf.create(text) == model.cfg
