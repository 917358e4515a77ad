"""The look-ahead convolution."""

import pytest
import torch

from nemo_ds2_adapters.layers import Lookahead


@pytest.mark.parametrize("context", [1, 3, 20])
def test_equals_a_loop_over_frames_and_weights(context: int) -> None:
    frames, features = 7, 4
    lookahead = Lookahead(features, context)
    x = torch.randn(2, frames, features)
    x[1, 3:] = 0.0
    expected = torch.zeros_like(x)
    for t in range(frames):
        for step in range(min(context, frames - t)):
            expected[:, t] += lookahead.conv.weight[:, 0, step] * x[:, t + step]
    output = lookahead(x)
    torch.testing.assert_close(output, expected)
    assert not output[1, 3:].any()


def test_the_past_is_not_seen() -> None:
    lookahead = Lookahead(2, 3)
    x = torch.randn(1, 8, 2)
    changed = x.clone()
    changed[:, :4] = 5.0
    assert torch.equal(lookahead(changed)[:, 4:], lookahead(x)[:, 4:])


def test_context_below_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="lookahead_context=0.*at least 1"):
        Lookahead(4, 0)
