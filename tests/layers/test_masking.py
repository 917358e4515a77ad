"""Masks, reversal and length arithmetic."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nemo_ds2_adapters.layers import conv_output_length, length_mask, reverse_frames

batch_lengths = st.lists(st.integers(1, 12), min_size=1, max_size=5)


@given(batch_lengths, st.integers(0, 4))
def test_mask_marks_the_first_frames_of_each_row(lengths: list[int], padding: int) -> None:
    frames = max(lengths) + padding
    mask = length_mask(torch.tensor(lengths), frames)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[t < length for t in range(frames)] for length in lengths]


@given(length=st.integers(1, 60), kernel=st.integers(1, 12), stride=st.integers(1, 4), padding=st.integers(0, 6))
def test_output_length_is_that_of_torch(length: int, kernel: int, stride: int, padding: int) -> None:
    expected = 0  # torch refuses inputs shorter than the kernel
    if length + 2 * padding >= kernel:
        convolution = nn.Conv2d(1, 1, (1, kernel), stride=(1, stride), padding=(0, padding))
        expected = convolution(torch.zeros(1, 1, 1, length)).shape[-1]
    lengths = conv_output_length(torch.tensor([length]), kernel, stride, padding)
    assert lengths.clamp(min=0).tolist() == [expected]
    assert lengths.dtype == torch.int64


@given(batch_lengths, st.integers(0, 4))
def test_reversal_leaves_padding_where_it_is(lengths: list[int], padding: int) -> None:
    x = torch.randn(len(lengths), max(lengths) + padding, 3)
    reversed_x = reverse_frames(x, torch.tensor(lengths))
    for row, reversed_row, length in zip(x, reversed_x, lengths):
        assert torch.equal(reversed_row[:length], row[:length].flip(0))
        assert torch.equal(reversed_row[length:], row[length:])
    assert torch.equal(reverse_frames(reversed_x, torch.tensor(lengths)), x)
