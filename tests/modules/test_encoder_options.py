"""The encoder's options, configs and import paths, which saved archives hold for ever."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nemo.core.classes.common import typecheck
from nemo.core.classes.mixins.adapter_mixins import get_registered_adapter
from nemo.utils.config_utils import assert_dataclass_signature_match
from nemo.utils.model_utils import import_class_by_path
from omegaconf import OmegaConf
from torch import nn

from nemo_ds2_adapters import modules
from nemo_ds2_adapters.modules import (
    DeepSpeech2Decoder,
    DeepSpeech2DecoderConfig,
    DeepSpeech2Encoder,
    DeepSpeech2EncoderAdapter,
    DeepSpeech2EncoderAdapterConfig,
    DeepSpeech2EncoderConfig,
    MLPAdapter,
    MLPAdapterConfig,
)

TINY = {"feat_in": 16, "n_layers": 2, "d_model": 4, "conv_channels": [2, 2]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_layers": 0}, "n_layers=0.*at least 1"),
        ({"d_model": 0}, "d_model=0.*at least 1"),
        ({"dropout": 1.0}, "dropout=1.0.*below 1"),
        ({"dropout": -0.1}, "dropout=-0.1.*at least 0"),
        ({"feat_in": 0}, "feat_in=0.*at least 1"),
        ({"conv_channels": []}, r"conv_channels=\[\].*1 to 3"),
        ({"conv_channels": [2] * 4}, r"conv_channels=\[2, 2, 2, 2\].*1 to 3"),
        ({"activation": "softplus"}, "activation='softplus'.*clipped_relu"),
        ({"rnn_type": "sru"}, "rnn_type='sru'.*gru, lstm, rnn"),
        ({"rnn_nonlinearity": "relu"}, "rnn_nonlinearity='relu'.*rnn_type='gru'"),
        ({"rnn_nonlinearity": "elu", "rnn_type": "rnn"}, "rnn_nonlinearity='elu'.*tanh, relu"),
        ({"bidirectional_merge": "mean"}, "bidirectional_merge='mean'.*sum, concat"),
        ({"bidirectional_merge": "sum", "bidirectional": False}, "bidirectional_merge='sum'.*bidirectional=true"),
        ({"lookahead_context": 3}, "lookahead_context=3.*bidirectional=false"),
        ({"lookahead_context": -1, "bidirectional": False}, "lookahead_context=-1.*0"),
        ({"first_layer_norm": True, "batch_norm": False}, "first_layer_norm=True.*batch_norm=true"),
        ({"norm_relu": True, "batch_norm": False}, "norm_relu=True.*batch_norm=true"),
    ],
)
def test_bad_option_is_an_error_that_names_the_values(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepSpeech2Encoder(**{**TINY, **options})


@pytest.mark.parametrize(
    ("options", "rnn", "input_sizes", "width"),
    [
        ({}, nn.GRU, [8, 4], 4),
        ({"rnn_type": "lstm", "bidirectional_merge": "concat", "n_layers": 3}, nn.LSTM, [8, 8, 8], 8),
        ({"rnn_type": "rnn", "bidirectional": False, "conv_channels": [3]}, nn.RNN, [24, 4], 4),
    ],
)
def test_options_make_the_layers_they_name(options: dict, rnn: type, input_sizes: list[int], width: int) -> None:
    encoder = DeepSpeech2Encoder(**{**TINY, **options})
    assert [layer.rnn.input_size for layer in encoder.layers] == input_sizes
    assert all(type(layer.rnn) is rnn and layer.rnn.hidden_size == 4 for layer in encoder.layers)
    assert encoder._feat_out == width
    assert [encoder.point_width(i) for i in range(encoder.n_layers + 1)] == [input_sizes[0]] + [width] * len(
        input_sizes
    )


def test_norms_stand_where_the_options_say() -> None:
    def norms(**options: Any) -> list[bool]:
        return [layer.norm is not None for layer in DeepSpeech2Encoder(**TINY, **options).layers]

    assert norms() == [False, True]
    assert norms(first_layer_norm=True) == [True, True]
    assert norms(batch_norm=False) == [False, False]


def test_subsampling_factor_is_input_frames_per_output_frame(make_encoder: Callable[..., DeepSpeech2Encoder]) -> None:
    for channels in ([2], [2, 2], [2, 2, 2]):
        encoder = make_encoder(conv_channels=channels)
        _, lengths = encoder(audio_signal=torch.randn(1, 16, 80), length=torch.tensor([80]))
        assert encoder.subsampling_factor == 2 == 80 // lengths.item()


def test_input_example_runs(make_encoder: Callable[..., DeepSpeech2Encoder]) -> None:
    encoder = make_encoder()
    features, lengths = encoder.input_example(max_batch=3, max_dim=20)
    output, output_lengths = encoder(audio_signal=features, length=lengths)
    assert output.shape == (3, 8, 10) and output_lengths.tolist() == [5, 8, 10]


@pytest.mark.parametrize("name", modules.__all__)
def test_import_path_is_the_contract(name: str) -> None:
    cls = getattr(importlib.import_module("nemo_ds2_adapters.modules"), name)
    assert (cls.__module__, cls.__qualname__) == ("nemo_ds2_adapters.modules", name)
    assert import_class_by_path(f"nemo_ds2_adapters.modules.{name}") is cls
    if name.endswith("Config"):
        assert cls._target_ == f"nemo_ds2_adapters.modules.{name.removesuffix('Config')}"


def test_the_contract_is_complete() -> None:
    classes = {"DeepSpeech2Encoder", "DeepSpeech2EncoderAdapter", "DeepSpeech2Decoder", "MLPAdapter"}
    assert classes | {f"{name}Config" for name in classes} <= set(modules.__all__)


def test_the_adapter_encoder_is_registered_under_these_paths() -> None:
    info = get_registered_adapter(DeepSpeech2Encoder)
    assert info is get_registered_adapter("nemo_ds2_adapters.modules.DeepSpeech2EncoderAdapter")
    assert info.adapter_class is DeepSpeech2EncoderAdapter
    assert info.base_class_path == "nemo_ds2_adapters.modules.DeepSpeech2Encoder"
    assert info.adapter_class_path == "nemo_ds2_adapters.modules.DeepSpeech2EncoderAdapter"


@pytest.mark.parametrize(
    ("cls", "config", "own_to_config"),
    [
        (DeepSpeech2Encoder, DeepSpeech2EncoderConfig, []),
        (DeepSpeech2EncoderAdapter, DeepSpeech2EncoderAdapterConfig, []),
        (DeepSpeech2Decoder, DeepSpeech2DecoderConfig, []),
        (MLPAdapter, MLPAdapterConfig, ["layers"]),
    ],
)
def test_config_has_the_arguments_of_its_class(cls: type, config: type, own_to_config: list[str]) -> None:
    match, class_only, config_only = assert_dataclass_signature_match(
        cls, config, ignore_args=["_target_", *own_to_config]
    )
    assert match, (class_only, config_only)


@pytest.mark.parametrize("config", [DeepSpeech2EncoderConfig, DeepSpeech2EncoderAdapterConfig])
def test_encoder_is_built_from_its_config(config: type) -> None:
    cfg = OmegaConf.structured(config(**TINY, rnn_type="lstm"))
    encoder = DeepSpeech2Encoder.from_config_dict(cfg)
    assert type(encoder) is import_class_by_path(config._target_)
    assert isinstance(encoder.layers[1].rnn, nn.LSTM) and encoder._feat_out == 4
    again = DeepSpeech2Encoder.from_config_dict(encoder.to_config_dict())
    again.load_state_dict(encoder.state_dict())


def test_default_config_is_that_of_the_class() -> None:
    plain = OmegaConf.to_container(OmegaConf.structured(DeepSpeech2EncoderConfig(**TINY)))
    plain.pop("_target_")
    assert str(DeepSpeech2Encoder(**plain)) == str(DeepSpeech2Encoder(**TINY))


@pytest.mark.parametrize("rnn_type", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_mixed_precision_stays_close(
    make_encoder: Callable[..., DeepSpeech2Encoder], rnn_type: str, training: bool, device: str
) -> None:
    encoder = make_encoder(rnn_type=rnn_type).train(training).to(device)
    batch = {"audio_signal": torch.randn(2, 16, 30, device=device), "length": torch.tensor([30, 7], device=device)}
    expected, _ = encoder(**batch)
    with torch.autocast(device, dtype=torch.bfloat16):
        output, _ = encoder(**batch)
        output.float().sum().backward()
        with torch.no_grad():
            again, _ = encoder(**batch)
    for got in (output, again):
        torch.testing.assert_close(got.float(), expected, rtol=0, atol=0.1)
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traced_encoder_takes_any_lengths(make_encoder: Callable[..., DeepSpeech2Encoder]) -> None:
    encoder = make_encoder().eval()
    with torch.no_grad(), typecheck.disable_checks():
        traced = torch.jit.trace(encoder, encoder.input_example(3, 40))
        for lengths in ([40, 7, 20], [1, 64], [33]):
            features = torch.randn(len(lengths), 16, max(lengths))
            output, output_lengths = traced(features, torch.tensor(lengths))
            expected, expected_lengths = encoder(audio_signal=features, length=torch.tensor(lengths))
            torch.testing.assert_close(output, expected)
            assert torch.equal(output_lengths, expected_lengths)
