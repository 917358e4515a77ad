"""What the encoder computes: every option, alone and in any batch."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nemo_ds2_adapters.layers import ACTIVATIONS, MaskedBatchNorm
from nemo_ds2_adapters.modules import DeepSpeech2Encoder

BANDS = 16
LENGTHS = [1, 40, 2, 17, 5]  # the receptive field of two convolutions is 31 frames
NAN, INF = float("nan"), float("inf")

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "one layer": {"n_layers": 1},
    "three layers": {"n_layers": 3},
    "d_model": {"d_model": 5},
    "lstm": {"rnn_type": "lstm"},
    "rnn": {"rnn_type": "rnn"},
    "rnn tanh": {"rnn_type": "rnn", "rnn_nonlinearity": "tanh"},
    "rnn relu": {"rnn_type": "rnn", "rnn_nonlinearity": "relu"},
    "sum": {"bidirectional_merge": "sum"},
    "concat": {"bidirectional_merge": "concat"},
    "forward": {"bidirectional": False},
    "look-ahead": {"bidirectional": False, "lookahead_context": 4},
    "long look-ahead": {"bidirectional": False, "lookahead_context": 30, "rnn_type": "lstm"},
    "one convolution": {"conv_channels": [3]},
    "three convolutions": {"conv_channels": [2, 3, 2]},
    "no convolution bias": {"conv_bias": False},
    "no batch norm": {"batch_norm": False},
    "first layer norm": {"first_layer_norm": True},
    "norm relu": {"norm_relu": True},
    "kospeech": {"first_layer_norm": True, "norm_relu": True, "bidirectional_merge": "concat", "conv_bias": False},
    "dropout": {"dropout": 0.5},
    **{name: {"activation": name, "bidirectional": False, "lookahead_context": 3} for name in ACTIVATIONS},
}
every_option = pytest.mark.parametrize(
    ("options", "device"),
    [pytest.param(options, "cpu", id=name) for name, options in OPTIONS.items()]
    + [
        pytest.param(OPTIONS[name], "cuda", id=f"{name} on a GPU", marks=pytest.mark.gpu)
        for name in ("default", "lstm", "look-ahead", "kospeech")
    ],
)
EncoderMaker = Callable[..., DeepSpeech2Encoder]


def utterances(lengths: list[int], device: str = "cpu") -> list[Tensor]:
    """Features `[BANDS, T]` of each length; an utterance depends on its length only."""
    random = [torch.Generator().manual_seed(length) for length in lengths]
    return [torch.randn(BANDS, length, generator=g).to(device) for length, g in zip(lengths, random)]


def batch_of(features: list[Tensor], padding: float = 0.0, extra: int = 0) -> dict[str, Tensor]:
    """A batch padded with the value `padding` to `extra` frames more than its longest utterance."""
    lengths = [x.shape[1] for x in features]
    signal = features[0].new_full((len(features), BANDS, max(lengths) + extra), padding)
    for row, x in zip(signal, features):
        row[:, : x.shape[1]] = x
    return {"audio_signal": signal, "length": torch.tensor(lengths, device=signal.device)}


def single_runs(encoder: DeepSpeech2Encoder, features: list[Tensor]) -> list[Tensor]:
    """Output `[D, T']` of each utterance alone."""
    outputs = []
    for x in features:
        output, length = encoder(**batch_of([x]))
        assert output.any() and output.shape == (1, encoder._feat_out, int(length))
        outputs.append(output[0])
    return outputs


def assert_rows_equal(encoder: DeepSpeech2Encoder, batch: dict[str, Tensor], expected: list[Tensor]) -> None:
    output, lengths = encoder(**batch)
    assert lengths.tolist() == [x.shape[1] for x in expected]
    assert not output.isnan().any()
    for row, row_expected, length in zip(output, expected, lengths):
        torch.testing.assert_close(row[:, :length], row_expected, rtol=0, atol=1e-5)
        assert not row[:, length:].any()


@every_option
@pytest.mark.parametrize("gradients", [torch.no_grad, torch.enable_grad])
def test_output_depends_on_the_utterance_alone(
    make_encoder: EncoderMaker, options: dict, device: str, gradients: Callable[[], AbstractContextManager]
) -> None:
    encoder = make_encoder(**options).eval().to(device)
    features = utterances(LENGTHS, device)
    with gradients():
        expected = single_runs(encoder, features)
        assert_rows_equal(encoder, batch_of(features), expected)
        assert_rows_equal(encoder, batch_of(features[::-1]), expected[::-1])
        for padding in (1e4, NAN, INF):
            assert_rows_equal(encoder, batch_of(features, padding, extra=3), expected)


@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    padding=st.sampled_from([0.0, -3.0, NAN, INF]),
    extra=st.integers(0, 40),
    options=st.sampled_from([{}, OPTIONS["look-ahead"], OPTIONS["lstm"], OPTIONS["kospeech"]]),
)
def test_output_depends_on_the_utterance_alone_for_any_lengths(
    lengths: list[int], padding: float, extra: int, options: dict
) -> None:
    torch.manual_seed(0)
    encoder = DeepSpeech2Encoder(BANDS, n_layers=2, d_model=4, conv_channels=[2, 2], **options).eval()
    features = utterances(lengths)
    with torch.no_grad():
        assert_rows_equal(encoder, batch_of(features, padding, extra), single_runs(encoder, features))


@every_option
def test_padding_does_not_enter_training(make_encoder: EncoderMaker, options: dict, device: str) -> None:
    encoder, padded = (make_encoder(**{**options, "dropout": 0.0}).to(device) for _ in range(2))
    features = utterances(LENGTHS, device)
    output, _ = encoder(**batch_of(features))
    padded_output, _ = padded(**batch_of(features, padding=NAN, extra=30))
    torch.testing.assert_close(padded_output[..., : output.shape[-1]], output, rtol=0, atol=1e-5)
    norms = [module for module in encoder.modules() if isinstance(module, MaskedBatchNorm)]
    assert all(norm.num_batches_tracked == 1 for norm in norms)
    for got, expected in zip(padded.buffers(), encoder.buffers()):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@every_option
def test_forward_is_prefix_and_rest_at_every_point(make_encoder: EncoderMaker, options: dict, device: str) -> None:
    encoder = make_encoder(**options).eval().to(device)
    batch = batch_of(utterances(LENGTHS, device))
    for gradients in (torch.no_grad, torch.enable_grad):
        with gradients():
            expected, expected_lengths = encoder(**batch)
            for point in range(encoder.n_layers + 1):
                prefix, lengths = encoder.forward_prefix(**batch, point=point)
                assert prefix.shape == (len(LENGTHS), 20, encoder.point_width(point))
                assert torch.equal(lengths, expected_lengths)
                assert torch.equal(encoder.forward_from(prefix, lengths, point).transpose(1, 2), expected)


@pytest.mark.parametrize("options", [{}, OPTIONS["look-ahead"]], ids=["plain", "look-ahead"])
def test_points_are_the_outputs_of_the_parts(make_encoder: EncoderMaker, options: dict) -> None:
    encoder = make_encoder(n_layers=3, **options).eval()
    parts = [encoder.conv, *encoder.layers, *([encoder.lookahead] if options else [])]
    outputs: list[Any] = []
    for part in parts:
        part.register_forward_hook(lambda _, args, output: outputs.append(output))
    batch = batch_of(utterances(LENGTHS))
    encoder(**batch)
    expected = [outputs[0][0], *outputs[1:3], outputs[-1]]
    assert len(outputs) == len(parts)
    for point in range(4):
        assert torch.equal(encoder.forward_prefix(**batch, point=point)[0], expected[point])


@every_option
def test_gradients_reach_every_parameter(make_encoder: EncoderMaker, options: dict, device: str) -> None:
    encoder = make_encoder(**options).to(device)
    batch = batch_of(utterances(LENGTHS, device), padding=NAN, extra=3)
    for training in (True, False):
        encoder.zero_grad()
        output, _ = encoder.train(training)(**batch)
        (output * torch.randn_like(output)).sum().backward()
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert training or parameter.grad.any(), name  # in training a norm undoes the bias before it


@pytest.mark.parametrize("lengths", [[0], [4, 0, 7, 0]])
def test_length_0_names_its_rows(make_encoder: EncoderMaker, lengths: list[int]) -> None:
    encoder = make_encoder()
    rows = [i for i, length in enumerate(lengths) if length == 0]
    message = rf"utterances \[{', '.join(map(str, rows))}\] .*length 0"
    with pytest.raises(ValueError, match=message):
        encoder(audio_signal=torch.randn(len(lengths), BANDS, 8), length=torch.tensor(lengths))
    with pytest.raises(ValueError, match=message):
        encoder.forward_from(torch.randn(len(lengths), 8, 8), torch.tensor(lengths), 1)
    assert all(norm.num_batches_tracked == 0 for norm in encoder.modules() if isinstance(norm, MaskedBatchNorm))


def test_dropout_follows_the_mode(make_encoder: EncoderMaker) -> None:
    encoder, plain = make_encoder(dropout=0.5), make_encoder()
    batch = batch_of(utterances(LENGTHS))
    assert torch.equal(encoder.eval()(**batch)[0], plain.eval()(**batch)[0])
    encoder.train()
    assert not torch.equal(encoder(**batch)[0], encoder(**batch)[0])


@pytest.mark.parametrize("training", [True, False])
def test_freezing_changes_nothing_but_the_mode(make_encoder: EncoderMaker, training: bool) -> None:
    encoder = make_encoder(dropout=0.5, first_layer_norm=True).eval()
    batch = batch_of(utterances(LENGTHS))
    expected, buffers = encoder(**batch)[0], [buffer.clone() for buffer in encoder.buffers()]
    encoder.freeze()
    encoder.train(training)
    assert torch.equal(encoder(**batch)[0], expected)
    assert all(map(torch.equal, encoder.buffers(), buffers))


@pytest.mark.parametrize("training", [True, False])
def test_partial_unfreeze_keeps_the_mode_and_full_unfreeze_trains(make_encoder: EncoderMaker, training: bool) -> None:
    encoder = make_encoder().train(training)
    encoder.conv.requires_grad_(False)
    with encoder.as_frozen():
        assert not encoder.training
    assert encoder.training == training
    encoder.freeze()
    encoder.train(training)
    encoder.unfreeze(partial=True)
    assert {module.training for module in encoder.modules()} == {training}
    assert [p.requires_grad for p in encoder.conv.parameters()] == [False] * 8
    assert all(p.requires_grad for p in encoder.layers.parameters())
    encoder.unfreeze()
    assert encoder.training and all(p.requires_grad for p in encoder.parameters())
