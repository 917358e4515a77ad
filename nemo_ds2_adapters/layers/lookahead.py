"""Look-ahead convolution for forward-only models."""

import torch.nn.functional as F
from torch import Tensor, nn


class Lookahead(nn.Module):
    """Weighs each feature over the present and the following frames (Amodei et al. 2015, section 3.4, equation 13).

    Args:
        num_features: features per frame.
        context: frames seen, the present one included.
    """

    def __init__(self, num_features: int, context: int) -> None:
        super().__init__()
        if context < 1:
            raise ValueError(f"lookahead_context={context}: expected at least 1 frame")
        self.context = context
        self.conv = nn.Conv1d(num_features, num_features, context, groups=num_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, D]`, zero beyond each utterance -> the same shape, also zero there."""
        x = F.pad(x.transpose(1, 2), (0, self.context - 1))
        return self.conv(x).transpose(1, 2)
