"""Batch norm over real frames."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nemo_ds2_adapters.layers import MaskedBatchNorm, length_mask

FEATURES = 3


def batch(lengths: list[int], padding: float = 0.0, extra: int = 0) -> tuple[Tensor, Tensor]:
    """Frames `[B, T, FEATURES]` whose padding holds `padding`, and their mask `[B, T, 1]`."""
    generator = torch.Generator().manual_seed(sum(lengths))
    mask = length_mask(torch.tensor(lengths), max(lengths) + extra).unsqueeze(-1)
    x = torch.full((len(lengths), max(lengths) + extra, FEATURES), padding)
    for row, length in zip(x, lengths):
        row[:length] = 2.0 + 3.0 * torch.randn(length, FEATURES, generator=generator)
    return x, mask


def trained_norm() -> MaskedBatchNorm:
    norm = MaskedBatchNorm(FEATURES, channel_dim=-1)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


def running_statistics(norm: MaskedBatchNorm) -> list[Tensor]:
    return [buffer.clone() for buffer in norm.buffers()]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4).filter(lambda lengths: sum(lengths) > 1))
def test_training_equals_torch_on_the_concatenated_real_frames(lengths: list[int]) -> None:
    norm, reference = trained_norm(), nn.BatchNorm1d(FEATURES)
    reference.load_state_dict(norm.state_dict())
    for step in range(2):
        x, mask = batch([length + step for length in lengths], padding=7.0)
        frames = torch.nn.Parameter(x[mask[..., 0]])
        x.requires_grad_()
        output, expected = norm(x, mask)[mask[..., 0]], reference(frames)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
        weights = torch.randn_like(expected)
        (output * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(x.grad[mask[..., 0]], frames.grad, rtol=1e-3, atol=1e-5)
        assert not x.grad[~mask[..., 0]].any()
    for got, wanted in zip(norm.parameters(), reference.parameters()):
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-4, atol=1e-4)
    for got, wanted in zip(norm.buffers(), reference.buffers()):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_images_are_normalised_per_channel() -> None:
    x = torch.randn(2, FEATURES, 5, 7)
    norm, reference = MaskedBatchNorm(FEATURES), nn.BatchNorm2d(FEATURES)
    mask = length_mask(torch.tensor([7, 7]), 7)[:, None, None, :]
    torch.testing.assert_close(norm(x, mask), reference(x))
    for got, wanted in zip(norm.buffers(), reference.buffers()):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("padding", [0.0, 1e6, float("nan"), float("inf")])
def test_padding_never_enters_the_statistics(padding: float) -> None:
    norm, padded_norm = MaskedBatchNorm(FEATURES, channel_dim=-1), MaskedBatchNorm(FEATURES, channel_dim=-1)
    x, mask = batch([4, 2, 6])
    padded, padded_mask = batch([4, 2, 6], padding=padding, extra=5)
    output, padded_output = norm(x, mask), padded_norm(padded, padded_mask)
    torch.testing.assert_close(output[mask[..., 0]], padded_output[padded_mask[..., 0]])
    for got, wanted in zip(padded_norm.buffers(), norm.buffers()):
        torch.testing.assert_close(got, wanted)


def test_eval_mode_uses_running_statistics() -> None:
    norm, reference = trained_norm(), nn.BatchNorm1d(FEATURES)
    norm(*batch([5, 3]))
    reference.load_state_dict(norm.state_dict())
    x, mask = batch([4, 4])
    before = running_statistics(norm)
    torch.testing.assert_close(norm.eval()(x, mask), reference.eval()(x.transpose(1, 2)).transpose(1, 2))
    assert all(map(torch.equal, norm.buffers(), before))


@pytest.mark.parametrize("training", [True, False])
def test_frozen_weight_keeps_running_statistics_in_every_mode(training: bool) -> None:
    norm = trained_norm()
    norm(*batch([5, 3]))
    x, mask = batch([4, 2])
    expected, before = norm.eval()(x, mask), running_statistics(norm)
    norm.weight.requires_grad_(False)
    assert torch.equal(norm.train(training)(x, mask), expected)
    assert all(map(torch.equal, norm.buffers(), before))


def test_unfreezing_brings_batch_statistics_back() -> None:
    norm = trained_norm()
    x, mask = batch([4, 2])
    expected = norm(x, mask)
    norm.weight.requires_grad_(False)
    assert not torch.allclose(norm(x, mask), expected)
    before = running_statistics(norm)
    norm.weight.requires_grad_(True)
    assert torch.equal(norm(x, mask), expected)
    assert not any(map(torch.equal, norm.buffers(), before))


def test_a_batch_without_real_frames_leaves_no_nan() -> None:
    norm = MaskedBatchNorm(FEATURES, channel_dim=-1)
    x, mask = batch([3, 3])
    assert norm(x, torch.zeros_like(mask)).isfinite().all()
    assert all(buffer.isfinite().all() for buffer in norm.buffers())


def test_conversion_to_synchronised_batch_norm_leaves_it() -> None:
    # Lightning does so on several devices where `sync_batchnorm` is on, as in NeMo's configs
    norm = MaskedBatchNorm(FEATURES, channel_dim=-1)
    module = nn.SyncBatchNorm.convert_sync_batchnorm(nn.ModuleList([norm, nn.BatchNorm1d(FEATURES)]))
    assert isinstance(module[1], nn.SyncBatchNorm) and module[0] is norm


def test_parameters_and_buffers_are_those_of_torch() -> None:
    norm, reference = MaskedBatchNorm(FEATURES), nn.BatchNorm1d(FEATURES)
    assert list(norm.state_dict()) == list(reference.state_dict())
    for got, expected in zip(norm.state_dict().values(), reference.state_dict().values()):
        assert torch.equal(got, expected) and got.dtype == expected.dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_output_has_the_dtype_of_the_input(dtype: torch.dtype) -> None:
    x, mask = batch([4, 2])
    norm = MaskedBatchNorm(FEATURES, channel_dim=-1)
    output = norm(x.to(dtype), mask)
    assert output.dtype == dtype
    expected = MaskedBatchNorm(FEATURES, channel_dim=-1)(x, mask)
    torch.testing.assert_close(output.float(), expected, rtol=2e-2, atol=2e-2)
