"""The GRU with a backward pass of its own computes what torch's does."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nemo_ds2_adapters.layers import RecurrentLayer, length_mask
from nemo_ds2_adapters.layers.gru import run_gru

INPUT_SIZE, HIDDEN_SIZE = 5, 4


def batch(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    x = torch.randn(len(lengths), max(lengths) + 2, INPUT_SIZE, dtype=torch.double)
    return x.requires_grad_(), torch.tensor(lengths)


def gru(bidirectional: bool) -> nn.GRU:
    torch.manual_seed(1)
    return nn.GRU(INPUT_SIZE, HIDDEN_SIZE, bidirectional=bidirectional, batch_first=True).double()


def run_torch(rnn: nn.GRU, x: Tensor, lengths: Tensor) -> Tensor:
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=x.shape[1])[0]


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), bidirectional=st.booleans(), seed=st.integers(0, 99)
)
def test_outputs_and_all_gradients_are_those_of_torch(lengths: list[int], bidirectional: bool, seed: int) -> None:
    rnn, (x, cpu_lengths) = gru(bidirectional), batch(lengths, seed)
    wanted, got = run_torch(rnn, x, cpu_lengths), run_gru(rnn, x, cpu_lengths)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    upstream, inputs = torch.randn_like(wanted), [x, *rnn.parameters()]
    for mine, torchs in zip(torch.autograd.grad(got, inputs, upstream), torch.autograd.grad(wanted, inputs, upstream)):
        torch.testing.assert_close(mine, torchs, rtol=1e-11, atol=1e-12)


def test_mixed_precision_is_as_near_to_full_precision_as_torch_gets() -> None:
    rnn, (x, lengths) = gru(bidirectional=True).float(), batch([9, 4, 7])
    x = x.detach().float().requires_grad_()
    inputs = [x, *rnn.parameters()]
    full = run_torch(rnn, x, lengths)
    upstream = torch.randn_like(full)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mine, torchs = run_gru(rnn, x, lengths), run_torch(rnn, x, lengths)
    assert mine.dtype == torchs.dtype == full.dtype
    assert torch.dist(mine, full) < 1.5 * torch.dist(torchs, full)
    wanted = torch.autograd.grad(full, inputs, upstream)
    got = torch.autograd.grad(mine, inputs, upstream)
    others = torch.autograd.grad(torchs, inputs, upstream)
    for grad, my_grad, torchs_grad in zip(wanted, got, others):
        assert torch.dist(my_grad, grad) < 1.5 * torch.dist(torchs_grad, grad)


@pytest.mark.parametrize("trained", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0_reverse", None])
def test_only_what_is_trained_gets_a_gradient(trained: str | None) -> None:
    rnn, (x, lengths) = gru(bidirectional=True), batch([3, 7, 5])
    for name, parameter in rnn.named_parameters():
        parameter.requires_grad_(name == trained)
    run_gru(rnn, x, lengths).square().sum().backward()
    mine = {name: p.grad for name, p in rnn.named_parameters()}
    assert [name for name, grad in mine.items() if grad is not None] == [trained] * (trained is not None)
    x_grad, x.grad = x.grad, None
    rnn.zero_grad()
    run_torch(rnn, x, lengths).square().sum().backward()
    torch.testing.assert_close(x_grad, x.grad)
    for name, parameter in rnn.named_parameters():
        torch.testing.assert_close(mine[name], parameter.grad)


def test_what_padding_holds_does_not_matter() -> None:
    rnn, (x, lengths) = gru(bidirectional=True), batch([3, 7, 5])
    x.data[0, 3:] = float("nan")
    output = run_gru(rnn, x, lengths)
    output.sum().backward()
    assert x.grad is not None
    assert output.isfinite().all() and x.grad.isfinite().all()
    assert not output[0, 3:].any() and not x.grad[0, 3:].any()


def test_a_second_derivative_is_refused() -> None:
    rnn, (x, lengths) = gru(bidirectional=False), batch([3])
    (grad,) = torch.autograd.grad(run_gru(rnn, x, lengths).square().sum(), [x], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_a_layer_traced_in_grad_mode_takes_other_lengths() -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer(INPUT_SIZE, HIDDEN_SIZE).eval().requires_grad_(False)

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        return layer(x, lengths, length_mask(lengths, x.shape[1]).unsqueeze(-1), lengths)

    traced = torch.jit.trace(run, (torch.randn(2, 6, INPUT_SIZE), torch.tensor([6, 4])), check_trace=False)
    x, lengths = torch.randn(2, 6, INPUT_SIZE), torch.tensor([3, 6])
    torch.testing.assert_close(traced(x, lengths), run(x, lengths))
