"""Batch normalisation that sees real frames only."""

import torch
from torch import Tensor, nn


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch norm over all real frames of a batch ("sequence-wise", Amodei et al. 2015, equation 6).

    Differs from `nn.BatchNorm1d` in two ways: padding frames never enter the statistics, and a layer whose
    weight is frozen uses its running statistics whatever mode it is in. So a frozen base computes the same
    before, during and after an adapter's training, and unfreezing it brings the batch statistics back.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, num_features: int, channel_dim: int = 1, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.channel_dim = channel_dim

    def forward(self, input: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """Normalise each channel.

        Args:
            input: any shape, with `num_features` channels at `channel_dim`.
            mask: bool, broadcastable to `input`, with one entry per frame: True where it is real.

        Returns:
            the shape of `input`; padding frames are not zeroed.
        """
        shape = [1] * input.dim()
        shape[self.channel_dim] = self.num_features
        if self.training and self.weight.requires_grad:
            mean, var = self._batch_statistics(input, mask)
        else:
            mean, var = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        return torch.addcmul(shift.to(input.dtype).view(shape), input, scale.to(input.dtype).view(shape))

    def _batch_statistics(self, input: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance per channel over real frames; updates the running statistics."""
        dims = [d for d in range(input.dim()) if d != self.channel_dim % input.dim()]
        with torch.autocast(input.device.type, enabled=False):
            real = input.to(torch.promote_types(input.dtype, torch.float32)).masked_fill(~mask, 0.0)
            count = (mask.sum() * (input.numel() // (mask.numel() * self.num_features))).clamp(min=1)
            mean = real.sum(dims) / count
            shape = [1] * input.dim()
            shape[self.channel_dim] = self.num_features
            var = (real - mean.view(shape)).masked_fill(~mask, 0.0).square().sum(dims) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = var * count / (count - 1).clamp(min=1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked += 1
        return mean, var
