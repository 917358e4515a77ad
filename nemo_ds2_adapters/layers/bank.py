"""One small network with the weights of many users, stacked."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Slots = int | Tensor
ACTIVATION_MODULE = "torch.nn.modules.activation"
WITHOUT_EFFECT = (nn.Dropout, nn.Identity)


class StackedLinear:
    """`nn.Linear` of every slot: weight `[S, out, in]`, bias `[S, out]`."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weight, self.bias = weights["weight"], weights.get("bias")

    def __call__(self, x: Tensor, slots: Slots) -> Tensor:
        """`[N, T, in]` -> `[N, T, out]`."""
        if isinstance(slots, int):
            return F.linear(x, self.weight[slots], None if self.bias is None else self.bias[slots])
        weight = self.weight[slots].transpose(1, 2)
        return torch.bmm(x, weight) if self.bias is None else torch.baddbmm(self.bias[slots].unsqueeze(1), x, weight)


class StackedLayerNorm:
    """`nn.LayerNorm` of every slot: weight and bias `[S, D]`."""

    def __init__(self, weights: dict[str, Tensor], eps: float) -> None:
        self.weight, self.bias = weights["weight"], weights["bias"]
        self.eps = eps

    def __call__(self, x: Tensor, slots: Slots) -> Tensor:
        """`[N, T, D]` -> the same shape."""
        shape = self.weight.shape[1:]
        if isinstance(slots, int):
            return F.layer_norm(x, shape, self.weight[slots], self.bias[slots], self.eps)
        x = F.layer_norm(x, shape, eps=self.eps)
        return torch.addcmul(self.bias[slots].unsqueeze(1), x, self.weight[slots].unsqueeze(1))


class StackedActivation:
    """An activation, which has no weights."""

    def __init__(self, activation: nn.Module) -> None:
        self.activation = activation

    def __call__(self, x: Tensor, slots: Slots) -> Tensor:
        """Any shape -> the same shape."""
        return self.activation(x)


class WeightBank:
    """The weights of many networks of one architecture, one tensor per weight, `[slots, ...]`.

    All of them are views of one tensor `[slots, numbers]`, so that a slot is written at once.

    Slot 0 is the base: all its weights are zero and stay zero, so what it returns is zero. Dropout is left out.
    Memory is reserved at once; on the CPU the system provides it when a slot is first written.

    Args:
        network: Linear, LayerNorm, Dropout and activations of torch in sequence. Its values do not matter.
        slots: number of slots, the base's included.
        device: where the weights are kept.
        dtype: their precision.

    Raises:
        ValueError: the network has another kind of layer.
    """

    def __init__(self, network: nn.Sequential, slots: int, device: torch.device, dtype: torch.dtype) -> None:
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        sizes = [shape.numel() for shape in shapes.values()]
        self._numbers = torch.empty(slots, sum(sizes), device=device, dtype=dtype)
        self._numbers[0] = 0.0
        parts = self._numbers.split(sizes, dim=1)
        self.weights = {key: part.view(slots, *shape) for (key, shape), part in zip(shapes.items(), parts)}
        layers = [(name, layer) for name, layer in network.named_children() if not isinstance(layer, WITHOUT_EFFECT)]
        self._layers = [self._stacked(name, layer) for name, layer in layers]

    def write(self, slot: int, state: Mapping[str, Tensor]) -> None:
        """Give a slot, not 0, the weights of a network: its state dict."""
        if slot < 1 or state.keys() != self.weights.keys():
            raise ValueError(f"slot {slot} with {sorted(state)}: expected slot 1 or more and {sorted(self.weights)}")
        self._numbers[slot].copy_(torch.cat([state[key].reshape(-1) for key in self.weights]))

    def __call__(self, x: Tensor, slots: Slots) -> Tensor:
        """Run each row through the network of its slot.

        Args:
            x: `[N, T, in]`.
            slots: one for all rows, or `[N]`, one for each: then every weight is gathered, and multiplied in one
                batched product.

        Returns:
            `[N, T, out]`.
        """
        for layer in self._layers:
            x = layer(x, slots)
        return x

    def _stacked(self, name: str, layer: nn.Module) -> StackedLinear | StackedLayerNorm | StackedActivation:
        weights = {key: self.weights[f"{name}.{key}"] for key in layer.state_dict()}
        if type(layer) is nn.Linear:
            return StackedLinear(weights)
        if type(layer) is nn.LayerNorm and len(weights) == 2 and len(layer.normalized_shape) == 1:
            return StackedLayerNorm(weights, layer.eps)
        if type(layer).__module__ == ACTIVATION_MODULE and not weights:
            return StackedActivation(layer)
        raise ValueError(f"a bank cannot stack a {layer}: expected Linear, LayerNorm, Dropout or an activation")
