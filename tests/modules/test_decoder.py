"""The CTC head."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters.layers import MaskedBatchNorm, length_mask
from nemo_ds2_adapters.modules import DeepSpeech2Decoder, DeepSpeech2DecoderConfig, MLPAdapterConfig

WIDTH = 6
LETTERS = ["a", "b", "c"]
LINEAR_PATH = "nemo.collections.common.parts.adapter_modules.LinearAdapter"
ADAPTERS = [
    pytest.param(MLPAdapterConfig(hidden_dims=[5]), id="mlp"),
    pytest.param({"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [5]}, id="mlp dict"),
    pytest.param(LinearAdapterConfig(in_features=99, dim=5), id="linear"),
    pytest.param(OmegaConf.create({"_target_": LINEAR_PATH, "dim": 5}), id="linear without in_features"),
]
ModelMaker = Callable[..., EncDecCTCModel]
Disturb = Callable[[nn.Module, str], None]


def encoded(lengths: tuple[int, ...] = (7, 3), extra: int = 0) -> Tensor:
    """`[B, WIDTH, T]`, zero beyond the real frames, as the encoder gives it."""
    x = torch.randn(len(lengths), WIDTH, max(lengths), generator=torch.Generator().manual_seed(2))
    x = nn.functional.pad(x, (0, extra))
    return x.masked_fill(~length_mask(torch.tensor(lengths), x.shape[2])[:, None], 0.0)


def decoder(**options: Any) -> DeepSpeech2Decoder:
    return DeepSpeech2Decoder(WIDTH, vocabulary=LETTERS, **options)


@pytest.mark.parametrize(("norm", "cls"), [(None, type(None)), ("batch", MaskedBatchNorm), ("layer", nn.LayerNorm)])
@pytest.mark.parametrize("bias", [True, False])
def test_output_is_log_softmax_of_norm_and_linear(norm: str | None, cls: type, bias: bool) -> None:
    head = decoder(norm=norm, bias=bias).eval()
    assert isinstance(head.norm, cls)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    x = encoded()
    expected = x.transpose(1, 2)
    if norm == "batch":
        nn.init.normal_(head.norm.running_mean)
        plain = nn.BatchNorm1d(WIDTH).eval()
        plain.load_state_dict(head.norm.state_dict())
        expected = plain(x).transpose(1, 2)
    elif norm == "layer":
        expected = head.norm(expected)
    expected = (expected @ head.output.weight.T + (head.output.bias if bias else 0.0)).log_softmax(-1)
    output = head(encoder_output=x)
    assert output.shape == (2, 7, len(LETTERS) + 1)
    assert (head.output.bias is not None) == bias
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_padding_does_not_enter_training(norm: str | None) -> None:
    head, padded = decoder(norm=norm), decoder(norm=norm)
    padded.load_state_dict(head.state_dict())
    x, more = encoded(), encoded(extra=9)
    torch.testing.assert_close(padded(encoder_output=more)[:, :7], head(encoder_output=x))
    for got, expected in zip(padded.buffers(), head.buffers()):
        torch.testing.assert_close(got, expected)
    if norm == "batch":
        real = torch.cat([x[0].T, x[1, :, :3].T])
        torch.testing.assert_close(head.norm.running_mean, 0.1 * real.mean(0))


def test_a_silent_frame_inside_an_utterance_is_not_padding() -> None:
    head = decoder(norm="batch")
    x = encoded((7,))
    x[0, :, 3] = 0.0
    head(encoder_output=x)
    torch.testing.assert_close(head.norm.running_mean, 0.1 * x[0].mean(1))


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    head = decoder(norm="batch").eval()
    expected = head(encoder_output=encoded())
    head.freeze()
    head.train()
    assert torch.equal(head(encoder_output=encoded()), expected)
    head.unfreeze()
    assert not torch.allclose(head(encoder_output=encoded()), expected)


def test_vocabulary_and_classes() -> None:
    head = decoder()
    assert isinstance(head.vocabulary, ListConfig) and list(head.vocabulary) == LETTERS
    assert head.num_classes_with_blank == head.output.out_features == 4
    assert DeepSpeech2Decoder(WIDTH, num_classes=3, vocabulary=LETTERS).num_classes_with_blank == 4
    unnamed = DeepSpeech2Decoder(WIDTH, num_classes=9)
    assert unnamed.vocabulary is None and unnamed.num_classes_with_blank == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "num_classes=-1.*vocabulary"),
        ({"vocabulary": []}, "num_classes=-1.*vocabulary"),
        ({"vocabulary": LETTERS, "num_classes": 4}, "3 units.*num_classes=4"),
        ({"vocabulary": LETTERS, "norm": "group"}, "norm='group'.*batch, layer"),
    ],
)
def test_bad_option_is_an_error_that_names_the_values(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepSpeech2Decoder(WIDTH, **options)


def test_built_from_its_config() -> None:
    config = OmegaConf.structured(DeepSpeech2DecoderConfig(feat_in=WIDTH, vocabulary=LETTERS, norm="layer"))
    head = DeepSpeech2Decoder.from_config_dict(config)
    assert isinstance(head.norm, nn.LayerNorm) and list(head.vocabulary) == LETTERS
    unnamed = DeepSpeech2DecoderConfig(feat_in=WIDTH, num_classes=9)
    assert DeepSpeech2Decoder.from_config_dict(OmegaConf.structured(unnamed)).num_classes_with_blank == 10


def test_temperature_of_the_decoding_strategy_divides_the_logits(
    model: EncDecCTCModel, batch: dict[str, Tensor]
) -> None:
    logprobs = model(**batch)[0]
    model.change_decoding_strategy(OmegaConf.create({"strategy": "greedy_batch", "temperature": 2.0}), verbose=False)
    assert model.decoder.temperature == 2.0
    torch.testing.assert_close(model(**batch)[0], (logprobs / 2).log_softmax(-1))


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_model_with_every_norm_trains(make_model: ModelMaker, batch: dict[str, Tensor], norm: str | None) -> None:
    model = make_model(decoder={"norm": norm}).train()
    logprobs, lengths, greedy = model(**batch)
    assert logprobs.shape == (3, 21, 29) and greedy.shape == logprobs.shape[:2]
    targets = torch.tensor([[1], [2], [3]])
    loss = model.loss(
        log_probs=logprobs, targets=targets, input_lengths=lengths, target_lengths=torch.ones(3, dtype=torch.long)
    )
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert model.decoder.output.weight.grad.any()


@pytest.mark.parametrize("cfg", ADAPTERS)
def test_adapter_before_the_output_layer(
    model: EncDecCTCModel, batch: dict[str, Tensor], disturb: Disturb, cfg: DictConfig
) -> None:
    with torch.no_grad():
        base = model(**batch)[0]
        model.add_adapter("decoder:user", cfg)
        assert torch.equal(model(**batch)[0], base)
        assert not model.encoder.is_adapter_available()
        assert model.decoder.get_enabled_adapters() == model.get_enabled_adapters() == ["user"]
        assert model.cfg.adapters.user.in_features == 8
        disturb(model.decoder, "user")
        assert not torch.allclose(model(**batch)[0], base)
        model.set_enabled_adapters("user", enabled=False)
        assert torch.equal(model(**batch)[0], base)


@pytest.mark.parametrize("cfg", ADAPTERS)
def test_adapter_is_saved_and_restored(
    model: EncDecCTCModel, batch: dict[str, Tensor], disturb: Disturb, cfg: DictConfig, tmp_path: Path
) -> None:
    model.add_adapter("decoder:user", cfg)
    disturb(model.decoder, "user")
    model.save_to(str(tmp_path / "model.nemo"))
    restored = EncDecCTCModel.restore_from(str(tmp_path / "model.nemo"), map_location="cpu").eval()
    assert restored.decoder.get_enabled_adapters() == ["user"] and not restored.encoder.is_adapter_available()
    with torch.no_grad():
        assert torch.equal(restored(**batch)[0], model(**batch)[0])


@pytest.mark.parametrize("layers", ["last", "all", [0]])
def test_one_name_in_encoder_and_decoder(
    model: EncDecCTCModel, batch: dict[str, Tensor], disturb: Disturb, layers: Any, tmp_path: Path
) -> None:
    model.add_adapter("encoder+decoder:user", MLPAdapterConfig(hidden_dims=[5], layers=layers))
    assert model.cfg.adapters.user.layers == layers
    disturb(model, "user")
    model.save_to(str(tmp_path / "model.nemo"))
    restored = EncDecCTCModel.restore_from(str(tmp_path / "model.nemo"), map_location="cpu").eval()
    assert restored.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(restored(**batch)[0], model(**batch)[0])


def test_batch_norm_sees_real_frames_only_behind_an_adapter(disturb: Disturb) -> None:
    head, padded = decoder(norm="batch"), decoder(norm="batch")
    for one in (head, padded):
        torch.manual_seed(0)
        one.add_adapter("user", MLPAdapterConfig(hidden_dims=[5]))
        disturb(one, "user")
    head(encoder_output=encoded())
    padded(encoder_output=encoded(extra=9))
    torch.testing.assert_close(padded.norm.running_mean, head.norm.running_mean)
    torch.testing.assert_close(padded.norm.running_var, head.norm.running_var)


def test_unknown_adapter_type_is_an_error(model: EncDecCTCModel) -> None:
    with pytest.raises(ValueError, match="accepted adapter types"):
        model.decoder.add_adapter("user", {"_target_": "torch.nn.Linear"})


def test_change_of_vocabulary(model: EncDecCTCModel, batch: dict[str, Tensor], tmp_path: Path) -> None:
    model.add_adapter("user", MLPAdapterConfig(hidden_dims=[5]))
    model.change_vocabulary(["x", "y"])
    assert isinstance(model.decoder, DeepSpeech2Decoder) and isinstance(model.decoder.norm, MaskedBatchNorm)
    assert list(model.decoder.vocabulary) == ["x", "y"] and model.decoder.num_classes_with_blank == 3
    model.eval()
    logprobs = model(**batch)[0]
    assert logprobs.shape[-1] == 3 and model.get_enabled_adapters() == ["user"]
    model.add_adapter("decoder:head", MLPAdapterConfig(hidden_dims=[5]))
    model.save_to(str(tmp_path / "model.nemo"))
    restored = EncDecCTCModel.restore_from(str(tmp_path / "model.nemo"), map_location="cpu").eval()
    assert torch.equal(restored(**batch)[0], logprobs)
