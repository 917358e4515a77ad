"""Look-ahead convolution for forward-only models."""

import torch.nn.functional as F
from torch import Tensor, nn

from nemo_ds2_adapters.layers.state import PendingFrames


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

    def start(self, rows: int) -> PendingFrames:
        """The state of so many streams before their first frame."""
        weight = self.conv.weight
        return PendingFrames.at_start(rows, len(weight), self.context, 0, weight)

    def step(
        self, x: Tensor, lengths: Tensor, pending: PendingFrames, is_last: Tensor | None
    ) -> tuple[Tensor, Tensor, PendingFrames]:
        """`forward` of streams: `[B, T, D]`, new frames -> those that are complete by now, `[B]` of them real."""
        window, lengths, pending = pending.slide(x, lengths, 1, self.context - 1, is_last)
        return self.conv(window.transpose(1, 2)).transpose(1, 2), lengths, pending
