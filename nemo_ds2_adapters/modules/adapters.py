"""The modules that adapters are made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass
from itertools import pairwise
from typing import Any

from nemo.collections.common.parts.adapter_modules import AdapterModuleUtil
from nemo.core.classes.mixins.adapter_mixin_strategies import (
    AbstractAdapterStrategy,
    ResidualAddAdapterStrategyConfig,
)
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters.layers import build_activation
from nemo_ds2_adapters.modules.placement import DEFAULT_PLACEMENT

NORM_POSITIONS = ("pre", "post", "none")


def plain_config(cfg: DictConfig | Any) -> dict[str, Any]:
    """An adapter's config (dataclass, dict or DictConfig) as a dict of plain values, interpolations resolved."""
    if is_dataclass(cfg):
        cfg = OmegaConf.structured(cfg)
    return OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else dict(cfg)  # type: ignore[return-value]


def hidden_layers(
    in_features: int, hidden_dims: Sequence[int], activation: str, dropout: float
) -> tuple[list[nn.Module], int]:
    """Linear -> activation -> dropout per hidden size, and the last of these sizes.

    Raises:
        ValueError: not 1 to 3 hidden sizes, one below 1, or an unknown activation.
    """
    is_list = isinstance(hidden_dims, Sequence) and 1 <= len(hidden_dims) <= 3
    if not is_list or not all(isinstance(size, int) and size >= 1 for size in hidden_dims):
        raise ValueError(f"hidden_dims={hidden_dims!r}: expected a list of 1 to 3 sizes of at least 1")
    layers: list[nn.Module] = []
    for into, out in pairwise([in_features, *hidden_dims]):
        layers += [nn.Linear(into, out), build_activation(activation), nn.Dropout(dropout)]
    return layers, hidden_dims[-1]


class MLPAdapter(nn.Module, AdapterModuleUtil):
    """Linear -> activation -> dropout per hidden size, then a Linear back to the input size.

    The output is added to the input (NeMo's `ResidualAddAdapterStrategy`), and the last layer starts at zero, so
    a new adapter changes nothing.

    Args:
        in_features: values per frame, `D`.
        hidden_dims: 1 to 3 hidden sizes.
        activation: a name of `nemo_ds2_adapters.layers.ACTIVATIONS`.
        dropout: probability, after each hidden activation.
        norm_position: layer norm before the first Linear (`pre`), after the last (`post`), or `none`.
        adapter_strategy: how NeMo merges the output with the input; None adds.

    Raises:
        ValueError: not 1 to 3 hidden sizes, one below 1, or an unknown activation or norm position.
    """

    def __init__(
        self,
        in_features: int,
        hidden_dims: Sequence[int] = (512, 256),
        activation: str = "relu",
        dropout: float = 0.0,
        norm_position: str = "pre",
        adapter_strategy: AbstractAdapterStrategy | DictConfig | None = None,
    ) -> None:
        super().__init__()
        if norm_position not in NORM_POSITIONS:
            raise ValueError(f"norm_position={norm_position!r}: expected one of {', '.join(NORM_POSITIONS)}")
        hidden, width = hidden_layers(in_features, hidden_dims, activation, dropout)
        last: nn.Linear | nn.LayerNorm = nn.Linear(width, in_features)
        layers: list[nn.Module] = [nn.LayerNorm(in_features)] if norm_position == "pre" else []
        layers += [*hidden, last]
        if norm_position == "post":
            last = nn.LayerNorm(in_features)
            layers.append(last)
        self.module = nn.Sequential(*layers)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.setup_adapter_strategy(adapter_strategy)  # type: ignore[operator]  # NeMo has no types

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in_features]` -> what to add to it, the same shape."""
        return self.module(x)


@dataclass
class MLPAdapterConfig:
    """Arguments of `MLPAdapter`, and `layers`: where in the encoder it sits.

    `layers` is `first` (the convolutions' output), `last` (after the last recurrent layer and the look-ahead),
    `all` (after every recurrent layer) or a list of recurrent layer indices, 0 first. `in_features` is inferred.
    """

    in_features: int | None = None
    hidden_dims: list[int] = field(default_factory=lambda: [512, 256])
    activation: str = "relu"
    dropout: float = 0.0
    norm_position: str = "pre"
    layers: Any = DEFAULT_PLACEMENT
    adapter_strategy: Any = field(default_factory=ResidualAddAdapterStrategyConfig)
    _target_: str = "nemo_ds2_adapters.modules.MLPAdapter"
