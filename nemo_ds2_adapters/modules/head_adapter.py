"""The adapter that makes a person's own logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nemo.collections.common.parts.adapter_modules import AdapterModuleUtil
from nemo.utils.model_utils import import_class_by_path
from torch import Tensor, nn

from nemo_ds2_adapters.modules.adapters import hidden_layers

HEAD_MODES = ("add", "replace")
HEAD_PLACE = "a head adapter makes logits, so it belongs into a DeepSpeech2Decoder alone: add it as decoder:<name>"


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
