"""The adapters of many users, stacked, so that every row of a batch runs through its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Weights = Mapping[str, Tensor]  # of a network, by name: [1, ...] for all rows, or [N, ...], one for each
ACTIVATION_MODULE = "torch.nn.modules.activation"
WITHOUT_EFFECT = (nn.Dropout, nn.Identity)


@dataclass(frozen=True)
class Branch:
    """What adapters of one architecture do at one point: a network, whose output is added, or replaces what is there.

    Args:
        point: where.
        adds: whether the output is added.
        network: Linear, LayerNorm, Dropout and activations of torch in sequence. Its values do not matter, and it may
            have none.
    """

    point: str
    adds: bool
    network: nn.Sequential

    @cached_property
    def signature(self) -> tuple[str, bool, str]:
        """Equal for branches that differ in nothing but weights and dropout."""
        layers = [repr(layer) for layer in self.network if not isinstance(layer, nn.Dropout)]
        return self.point, self.adds, "\n".join(layers)

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """Of the network's weights."""
        return {key: value.shape for key, value in self.network.state_dict().items()}

    def __call__(self, x: Tensor, target: Tensor, weights: Weights) -> Tensor:
        """Let each row's adapter act.

        Args:
            x: `[N, T, D]`, what it works on.
            target: `[N, T, D']`, what its output is added to, or replaces.
            weights: of each row, or of all.

        Returns:
            `[N, T, D']`.
        """
        output = run_rowwise(self.network, x, weights)
        return target + output if self.adds else output


class StackedAdapters(nn.Module):
    """The adapters of many users of one architecture: for each of its branches, weights `[slots, ...]`.

    All numbers of a slot lie side by side, so that one copy writes them, or gathers them for a batch. Slot 0 is the
    base: its numbers are zero and stay zero, so what is added to a row is zero. Dropout is left out. Memory is
    reserved at once; on the CPU the system provides it when a slot is first written.

    Args:
        branches: of the architecture, at different points.
        slots: number of slots, the base's included.
        device: where the weights are kept.
        dtype: their precision.

    Raises:
        ValueError: a network has a layer of another kind.
    """

    numbers: Tensor

    def __init__(self, branches: Sequence[Branch], slots: int, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        for branch in branches:
            check_rowwise(branch.network)
        self.branches = {branch.point: branch for branch in branches}
        self._sizes = [shape.numel() for branch in branches for shape in branch.shapes.values()]
        self.register_buffer(
            "numbers", torch.empty(slots, sum(self._sizes), device=device, dtype=dtype), persistent=False
        )
        self.numbers[0] = 0.0

    def write(self, slot: int, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Give a slot, not 0, a user's weights: the state dict of each branch's network."""
        shapes = [{key: value.shape for key, value in state.items()} for state in states]
        expected = [branch.shapes for branch in self.branches.values()]
        if slot < 1 or shapes != expected:
            raise ValueError(f"slot {slot} with {shapes}: expected slot 1 or more and {expected}")
        values = [state[key].reshape(-1) for state, keys in zip(states, expected) for key in keys]
        self.numbers[slot].copy_(torch.cat(values))

    def weights(self, slots: int | Tensor) -> dict[str, Weights]:
        """Weights by point, to be used for a batch.

        Args:
            slots: one for all rows, whose weights are used where they lie; or `[N]`, one for each, which are gathered.
        """
        chosen = self.numbers[slots : slots + 1] if isinstance(slots, int) else self.numbers[slots]
        parts = iter(chosen.split(self._sizes, dim=1))
        return {
            point: {key: next(parts).view(-1, *shape) for key, shape in branch.shapes.items()}
            for point, branch in self.branches.items()
        }

    def forward(self, x: Tensor, slots: Tensor, point: str) -> Tensor:
        """`[N, T, D]` with each row's adapter at a point: what a graph with the adapters inside it holds.

        Args:
            x: what the adapters work on, and change.
            slots: `[N]`.
            point: where.
        """
        return self.branches[point](x, x, self.weights(slots)[point])


def run_rowwise(network: nn.Sequential, x: Tensor, weights: Weights) -> Tensor:
    """A network as each row has it.

    Args:
        network: one that `check_rowwise` passes.
        x: `[N, T, in]`.
        weights: to take in place of the network's own.

    Returns:
        `[N, T, out]`.
    """
    for name, layer in network.named_children():
        if isinstance(layer, WITHOUT_EFFECT):
            continue
        weight, bias = weights.get(f"{name}.weight"), weights.get(f"{name}.bias")
        if weight is None:
            x = layer(x)
        elif isinstance(layer, nn.LayerNorm):
            x = _layer_norm(layer, x, weight, weights[f"{name}.bias"])
        else:
            x = _linear(x, weight, bias)
    return x


def check_rowwise(network: nn.Sequential) -> None:
    """Refuse a network that cannot have weights of its own in each row.

    Raises ValueError: it has a layer that is no Linear, LayerNorm, Dropout or activation of torch.
    """
    for layer in network:
        weights = layer.state_dict()
        is_norm = type(layer) is nn.LayerNorm and len(weights) == 2 and len(layer.normalized_shape) == 1
        is_activation = type(layer).__module__ == ACTIVATION_MODULE and not weights
        if not (type(layer) is nn.Linear or is_norm or is_activation or isinstance(layer, WITHOUT_EFFECT)):
            raise ValueError(f"a bank cannot stack a {layer}: expected Linear, LayerNorm, Dropout or an activation")


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if weight.shape[0] == 1:
        return F.linear(x, weight[0], None if bias is None else bias[0])
    weight = weight.transpose(1, 2)
    return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, weight)


def _layer_norm(layer: nn.LayerNorm, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    shape = layer.normalized_shape  # not the weight's, which an exporter does not take for constant
    if weight.shape[0] == 1:
        return F.layer_norm(x, shape, weight[0], bias[0], layer.eps)
    return torch.addcmul(bias.unsqueeze(1), F.layer_norm(x, shape, eps=layer.eps), weight.unsqueeze(1))
