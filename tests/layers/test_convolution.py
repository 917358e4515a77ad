"""The convolutional front end."""

import pytest
import torch
from torch import nn

from nemo_ds2_adapters.layers import ACTIVATIONS, ConvFrontEnd, MaskedBatchNorm

BINS = 16


@pytest.mark.parametrize("channels", [[3], [2, 4], [2, 3, 4]])
@pytest.mark.parametrize("bins", [1, BINS, 161])
def test_shapes_are_those_of_the_convolutions(channels: list[int], bins: int) -> None:
    front_end = ConvFrontEnd(bins, channels)
    x = torch.randn(3, bins, 31)
    plain = x[:1].unsqueeze(1)
    for block in front_end.blocks:
        nn.init.constant_(block.norm.bias, 5.0)  # real frames are then not zero
        plain = block.conv(plain)
    output, lengths = front_end(x, torch.tensor([31, 12, 1]))
    assert output.shape == (3, plain.shape[-1], channels[-1] * plain.shape[2])
    assert front_end.feat_out == output.shape[2]
    assert lengths.tolist() == front_end.output_lengths(torch.tensor([31, 12, 1])).tolist() == [16, 6, 1]
    assert front_end.time_stride == 2
    for row, length in zip(output, lengths):
        assert row[:length].any(dim=1).all() and not row[length:].any()


@pytest.mark.parametrize("channels", [[3], [2, 4], [2, 3, 4]])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_equals_plain_torch_on_one_utterance(channels: list[int], activation: str, bias: bool) -> None:
    front_end = ConvFrontEnd(BINS, channels, activation, bias).eval()
    x = torch.randn(1, BINS, 15)
    expected = x.unsqueeze(1)
    for block in front_end.blocks:
        nn.init.normal_(block.norm.running_mean)
        norm = nn.BatchNorm2d(block.conv.out_channels).eval()
        norm.load_state_dict(block.norm.state_dict())
        expected = ACTIVATIONS[activation]()(norm(block.conv(expected)))
        assert (block.conv.bias is not None) == bias
    expected = expected.permute(0, 3, 1, 2).flatten(2)
    torch.testing.assert_close(front_end(x, torch.tensor([15]))[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("time_stride", [1, 2, 3, 4])
def test_output_frames_per_input_frame(time_stride: int) -> None:
    front = ConvFrontEnd(16, [2, 2], time_stride=time_stride).eval()
    lengths = torch.tensor([60, 31])
    x, frames = front(torch.randn(2, 16, 60), lengths)
    assert frames.tolist() == [-(-60 // time_stride), -(-31 // time_stride)] == front.output_lengths(lengths).tolist()
    assert x.shape == (2, frames[0], front.feat_out)
    assert front.time_stride == time_stride


def test_clipped_relu_lies_between_0_and_20() -> None:
    x = torch.tensor([-1.0, 3.0, 21.0])
    assert ACTIVATIONS["clipped_relu"]()(x).tolist() == [0.0, 3.0, 20.0]


def test_training_statistics_ignore_padding() -> None:
    front_end, padded = ConvFrontEnd(BINS, [2, 2]), ConvFrontEnd(BINS, [2, 2])
    padded.load_state_dict(front_end.state_dict())
    x, lengths = torch.randn(2, BINS, 20), torch.tensor([20, 9])
    front_end(x, lengths)
    padded(torch.cat([x, torch.full((2, BINS, 13), float("nan"))], dim=-1), lengths)
    norms = [m for m in front_end.modules() if isinstance(m, MaskedBatchNorm)]
    padded_norms = [m for m in padded.modules() if isinstance(m, MaskedBatchNorm)]
    for norm, padded_norm in zip(norms, padded_norms):
        assert norm.num_batches_tracked == 1
        torch.testing.assert_close(padded_norm.running_mean, norm.running_mean)
        torch.testing.assert_close(padded_norm.running_var, norm.running_var)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": []}, r"conv_channels=\[\].*1 to 3"),
        ({"channels": [2, 2, 2, 2]}, r"conv_channels=\[2, 2, 2, 2\].*1 to 3"),
        ({"channels": [2, 0]}, r"conv_channels=\[2, 0\].*at least 1"),
        ({"feat_in": 0}, "feat_in=0.*at least 1"),
        ({"activation": "softplus"}, "activation='softplus'.*clipped_relu"),
    ],
)
def test_bad_option_is_an_error(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvFrontEnd(**{"feat_in": BINS, **options})
