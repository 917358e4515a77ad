"""One recurrent layer."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemo_ds2_adapters.layers import RecurrentLayer, length_mask

LENGTHS = torch.tensor([3, 9, 1, 6])
SIZE, HIDDEN = 5, 4
RNN_OPTIONS: tuple[dict[str, Any], ...] = (
    {"rnn_type": "gru"},
    {"rnn_type": "lstm"},
    {"rnn_type": "rnn", "nonlinearity": "tanh"},
    {"rnn_type": "rnn", "nonlinearity": "relu"},
)
DIRECTIONS: tuple[dict[str, Any], ...] = (
    {"bidirectional": True, "merge": "sum"},
    {"bidirectional": True, "merge": "concat"},
    {"bidirectional": False},
)
every_rnn = pytest.mark.parametrize("rnn", RNN_OPTIONS, ids=lambda options: "-".join(options.values()))
every_direction = pytest.mark.parametrize("directions", DIRECTIONS, ids=["sum", "concat", "forward"])


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def frames(padding: float = 0.0, extra: int = 2) -> Tensor:
    """`[4, 11, SIZE]` with LENGTHS real frames."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(len(LENGTHS), int(LENGTHS.max()) + extra, SIZE, generator=generator)
    return x.masked_fill(~length_mask(LENGTHS, x.shape[1]).unsqueeze(-1), padding)


def run(layer: RecurrentLayer, x: Tensor) -> Tensor:
    return layer(x, LENGTHS, length_mask(LENGTHS, x.shape[1]).unsqueeze(-1), LENGTHS)


@every_rnn
@every_direction
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("norm_relu", [True, False])
def test_each_utterance_equals_plain_torch(
    rnn: dict, directions: dict, training: bool, batch_norm: bool, norm_relu: bool
) -> None:
    layer = RecurrentLayer(SIZE, HIDDEN, **rnn, **directions, batch_norm=batch_norm, norm_relu=norm_relu)
    x = frames(padding=float("nan"))
    real = length_mask(LENGTHS, x.shape[1])
    normed = x.clone()
    if batch_norm:
        norm = nn.BatchNorm1d(SIZE).train(training)
        for parameter, value in zip((*norm.parameters(), norm.running_mean), (1.5, 0.2, -0.3)):
            nn.init.constant_(parameter, value)
        layer.norm.load_state_dict(norm.state_dict())
        normed[real] = norm(x[real])
        if norm_relu:
            normed = F.relu(normed)
    # in grad mode the CPU runs padded sequences, otherwise packed ones
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            output = run(layer.train(training), x)
        assert output.shape == (len(LENGTHS), x.shape[1], layer.output_size)
        for row, frames_of_row, length in zip(output, normed, LENGTHS):
            expected = layer.rnn(frames_of_row[None, :length])[0][0]
            if directions.get("merge") == "sum":
                expected = expected[:, :HIDDEN] + expected[:, HIDDEN:]
            torch.testing.assert_close(row[:length], expected, rtol=1e-9, atol=1e-12)
            assert not row[length:].any()


@every_rnn
@every_direction
def test_gradients_equal_those_of_packed_sequences(rnn: dict, directions: dict) -> None:
    layer = RecurrentLayer(SIZE, HIDDEN, **rnn, **directions, batch_norm=False)
    x = frames().requires_grad_()
    mask = length_mask(LENGTHS, x.shape[1]).unsqueeze(-1)
    inputs = (x, *layer.rnn.parameters())
    padded = layer._run_padded(x, LENGTHS, mask)
    packed = layer._run_packed(x, LENGTHS)
    torch.testing.assert_close(padded, packed, rtol=1e-10, atol=1e-12)
    weights = torch.randn_like(packed)
    got = torch.autograd.grad((padded * weights).sum(), inputs)
    wanted = torch.autograd.grad((packed * weights).sum(), inputs)
    for gradient, expected in zip(got, wanted):
        assert expected.any()
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    assert not got[0].masked_select(~mask).any()


@every_rnn
def test_freezing_does_not_change_a_bit(rnn: dict) -> None:
    layer = RecurrentLayer(SIZE, HIDDEN, **rnn).float().eval()
    x = frames().float()
    expected = run(layer, x)
    assert torch.equal(run(layer.requires_grad_(False), x), expected)
    assert torch.equal(run(layer, x.requires_grad_()), expected)


def test_dropout_is_active_in_training_only() -> None:
    layer = RecurrentLayer(SIZE, HIDDEN, batch_norm=False, dropout=0.5)
    x = frames(extra=0)
    expected = run(layer.eval(), x)
    real = length_mask(LENGTHS, x.shape[1])
    dropped = run(layer.train(), x)[real]
    is_zero = dropped == 0
    assert 0.2 < is_zero.double().mean() < 0.8
    torch.testing.assert_close(dropped[~is_zero], 2 * expected[real][~is_zero])


def test_dropout_of_a_frozen_layer_is_off_unless_asked_for() -> None:
    layer = RecurrentLayer(SIZE, HIDDEN, dropout=0.5)
    expected = run(layer.eval(), frames())
    layer.requires_grad_(False).train()
    assert torch.equal(run(layer, frames()), expected)
    layer.dropout_when_frozen = True
    assert not torch.equal(run(layer, frames()), expected)
