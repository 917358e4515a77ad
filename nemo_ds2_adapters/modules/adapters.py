"""The modules that adapters are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from itertools import pairwise
from typing import Any

from nemo.collections.common.parts.adapter_modules import AdapterModuleUtil
from nemo.core.classes.mixins.adapter_mixin_strategies import (
    AbstractAdapterStrategy,
    ResidualAddAdapterStrategyConfig,
)
from nemo.utils.model_utils import import_class_by_path
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters.layers import build_activation

NORM_POSITIONS = ("pre", "post", "none")
PLACEMENTS = ("first", "last", "all")
DEFAULT_PLACEMENT = "all"
HEAD_MODES = ("add", "replace")
HEAD_PLACE = "a head adapter makes logits, so it belongs into a DeepSpeech2Decoder alone: add it as decoder:<name>"


def plain_config(cfg: DictConfig | Any) -> dict[str, Any]:
    """An adapter's config (dataclass, dict or DictConfig) as a dict of plain values, interpolations resolved."""
    if is_dataclass(cfg):
        cfg = OmegaConf.structured(cfg)
    return OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else dict(cfg)  # type: ignore[return-value]


def hidden_layers(
    in_features: int, hidden_dims: Sequence[int], activation: str, dropout: float
) -> tuple[list[nn.Module], int]:
    """Linear -> activation -> dropout per hidden size, and the last of these sizes."""
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


def placement_points(layers: str | Sequence[int], n_layers: int) -> list[int]:
    """The encoder's points (0 = convolutions' output, i = after recurrent layer i - 1) that `layers` names.

    `layers` is `first`, `last`, `all`, or recurrent layer indices, 0 first, of `n_layers`; anything else is a
    ValueError.
    """
    if layers == "first":
        return [0]
    if layers == "last":
        return [n_layers]
    if layers == "all":
        return list(range(1, n_layers + 1))
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise ValueError(f"layers={layers!r}: expected one of {', '.join(PLACEMENTS)} or a list of layer indices")
    indices = [*layers]
    if not all(isinstance(i, int) and 0 <= i < n_layers for i in indices):
        raise ValueError(f"layers={indices}: expected layer indices from 0 to {n_layers - 1}")
    if not indices or len(set(indices)) < len(indices):
        raise ValueError(f"layers={indices}: expected at least one layer, and each once")
    return sorted(i + 1 for i in indices)


class MLPHeadAdapter(nn.Module, AdapterModuleUtil):
    """Linear -> activation -> dropout per hidden size, then a Linear to the output units, blank included.

    `DeepSpeech2Decoder` runs it beside its own output layer, on the same encoder output frames but before its norm.
    In mode `add` the logits are added to the base's, and the last layer starts at zero, so that a new adapter changes
    nothing. In mode `replace` they take the place of the base's, and the last layer starts at random.

    Args:
        in_features: values per frame, `D`.
        num_classes_with_blank: output units, `V`.
        hidden_dims: 1 to 3 hidden sizes.
        activation: a name of `nemo_ds2_adapters.layers.ACTIVATIONS`.
        dropout: probability, after each hidden activation.
        mode: `add` or `replace`.

    Raises:
        ValueError: not 1 to 3 hidden sizes, one below 1, or an unknown activation or mode.
    """

    adapter_strategy = None  # NeMo's chain asks for it, but a head's output is not merged with its input

    def __init__(
        self,
        in_features: int,
        num_classes_with_blank: int,
        hidden_dims: Sequence[int] = (512, 256),
        activation: str = "relu",
        dropout: float = 0.0,
        mode: str = "add",
    ) -> None:
        super().__init__()
        if mode not in HEAD_MODES:
            raise ValueError(f"mode={mode!r}: expected one of {', '.join(HEAD_MODES)}")
        self.mode = mode
        hidden, width = hidden_layers(in_features, hidden_dims, activation, dropout)
        last = nn.Linear(width, num_classes_with_blank)
        self.module = nn.Sequential(*hidden, last)
        if mode == "add":
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """`[..., D]` -> the person's logits `[..., V]`; each frame by itself."""
        return self.module(frames)

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}"


def is_head(cfg: Mapping[str, Any]) -> bool:
    """Whether an adapter's config names a head adapter."""
    return issubclass(import_class_by_path(cfg["_target_"]), MLPHeadAdapter)


@dataclass
class MLPHeadAdapterConfig:
    """Arguments of `MLPHeadAdapter`. Both sizes are taken from the decoder."""

    in_features: int | None = None
    num_classes_with_blank: int | None = None
    hidden_dims: list[int] = field(default_factory=lambda: [512, 256])
    activation: str = "relu"
    dropout: float = 0.0
    mode: str = "add"
    _target_: str = "nemo_ds2_adapters.modules.MLPHeadAdapter"
