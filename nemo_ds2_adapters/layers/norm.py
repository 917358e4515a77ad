"""Batch normalisation that sees real frames only."""

import torch
from torch import Tensor, nn


class MaskedBatchNorm(nn.Module):
    """Batch norm over all real frames of a batch ("sequence-wise", Amodei et al. 2015, equation 6).

    Has the parameters and buffers of `nn.BatchNorm1d` and differs in two ways: padding frames never enter the
    statistics, and a layer whose weight is frozen uses its running statistics whatever mode it is in. So a frozen
    base computes the same before, during and after an adapter's training, and unfreezing it brings the batch
    statistics back. It is not a subclass, because a trainer with `sync_batchnorm=true`, as in NeMo's configs, has
    torch replace those by a layer that takes no mask.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, channel_dim: int = 1, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features = num_features
        self.channel_dim = channel_dim
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise each channel.

        Args:
            x: any shape, with `num_features` channels at `channel_dim`.
            mask: bool, broadcastable to `x`, with one entry per frame: True where it is real.

        Returns:
            the shape of `x`; padding frames are not zeroed.
        """
        if self.training and self.weight.requires_grad:
            mean, var = self._batch_statistics(x, mask)
        else:
            mean, var = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        return torch.addcmul(self._per_channel(shift, x), x, self._per_channel(scale, x))

    def extra_repr(self) -> str:
        return f"{self.num_features}, channel_dim={self.channel_dim}, eps={self.eps}, momentum={self.momentum}"

    def _batch_statistics(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance per channel over real frames; updates the running statistics."""
        dims = [d for d in range(x.dim()) if d != self.channel_dim % x.dim()]
        with torch.autocast(x.device.type, enabled=False):
            real = x.to(torch.promote_types(x.dtype, torch.float32)).masked_fill(~mask, 0.0)
            count = (mask.sum() * (x.numel() // (mask.numel() * self.num_features))).clamp(min=1)
            mean = real.sum(dims) / count
            var = (real - self._per_channel(mean, real)).masked_fill(~mask, 0.0).square().sum(dims) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = var * count / (count - 1).clamp(min=1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked += 1
        return mean, var

    def _per_channel(self, values: Tensor, x: Tensor) -> Tensor:
        """`[num_features]` in the dtype of `x`, and in a shape that broadcasts to it."""
        shape = [1] * x.dim()
        shape[self.channel_dim] = self.num_features
        return values.to(x.dtype).view(shape)
