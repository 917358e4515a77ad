"""The five-key file of the original per-user adapter for DeepSpeech2.

`adapter_state_dict` (its Linear layers in order, under whatever names), `input_dim`, `hidden_dims`, `output_dim` and
`adapter_name`. The adapter replaces the base's output layer: `MLPHeadAdapter` in mode `replace` in the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from nemo_ds2_adapters.adapters.adapter import HEAD, Adapter, check_finite
from nemo_ds2_adapters.adapters.stored import StoredTensor
from nemo_ds2_adapters.errors import AdapterFileError, InputError

STATE_KEY = "adapter_state_dict"
KEYS = (STATE_KEY, "input_dim", "hidden_dims", "output_dim", "adapter_name")
LAYERS_PER_HIDDEN = 3  # of a head's `module`: Linear, activation, dropout
MAX_HIDDEN = 3


def is_original(content: Mapping[str, Any]) -> bool:
    """Whether a file's content is in the original's format."""
    return STATE_KEY in content


def from_original(content: Mapping[str, Any]) -> dict[str, Adapter]:
    """The adapter of an original file, checked: AdapterFileError if a key is missing, or the layers are of other
    sizes."""
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise AdapterFileError(f"looks like a file of the original adapter, but lacks {', '.join(missing)}")
    sizes = _sizes(content)
    layers = _linear_layers(content[STATE_KEY])
    shapes = [list(weight.shape) for weight, _ in layers]
    expected = [[out, into] for into, out in pairwise(sizes)]
    if shapes != expected or any(list(bias.shape) != shape[:1] for (_, bias), shape in zip(layers, shapes)):
        raise AdapterFileError(f"declares Linear layers {expected}, but holds {shapes}")
    name = content["adapter_name"]
    if not isinstance(name, str):
        raise AdapterFileError(f"its adapter_name {name!r} is not text")
    state: dict[str, Any] = {}
    for i, (weight, bias) in enumerate(layers):
        state[f"module.{i * LAYERS_PER_HIDDEN}.weight"] = weight
        state[f"module.{i * LAYERS_PER_HIDDEN}.bias"] = bias
    check_finite(name, [state])
    config = {
        "_target_": HEAD,
        "in_features": sizes[0],
        "num_classes_with_blank": sizes[-1],
        "hidden_dims": sizes[1:-1],
        "mode": "replace",
        "enabled": True,
    }
    return {name: Adapter(name, config, {"0": state}, "decoder")}


def is_original_head(adapter: Adapter) -> bool:
    """Whether the original's format can hold the adapter: a head with ReLU that replaces the output layer."""
    config = adapter.config
    is_relu = config.get("activation", "relu") == "relu"
    return config["_target_"] == HEAD and config.get("mode") == "replace" and is_relu


def linear_sizes(adapter: Adapter) -> list[int]:
    """Input size, hidden sizes and output size of a chain of Linear layers; at its first point if it has several.

    Raises AdapterFileError: the adapter is something else.
    """
    weights = [value for value in next(iter(adapter.weights.values())).values() if len(value.shape) == 2]
    sizes = [weight.shape[1] for weight in weights[:1]] + [weight.shape[0] for weight in weights]
    if len(weights) < 2 or any(weight.shape[1] != size for weight, size in zip(weights, sizes)):
        raise AdapterFileError(
            f"adapter {adapter.name!r} is a {adapter.config['_target_']}, no chain of Linear layers: "
            f"inspect_adapter shows what it is"
        )
    return sizes


def to_original(adapter: Adapter) -> dict[str, Any]:
    """The original's five keys for a head that replaces the output layer; nothing else fits (InputError)."""
    if not is_original_head(adapter):
        raise InputError(
            f"adapter {adapter.name!r} is a {adapter.config['_target_']}: the original's format holds only heads that "
            f"replace the output layer, MLPHeadAdapter with mode=replace and activation=relu"
        )
    sizes = linear_sizes(adapter)
    return {
        STATE_KEY: next(iter(adapter.weights.values())),
        "input_dim": sizes[0],
        "hidden_dims": sizes[1:-1],
        "output_dim": sizes[-1],
        "adapter_name": adapter.name,
    }


def _sizes(content: Mapping[str, Any]) -> list[int]:
    hidden = content["hidden_dims"]
    sizes = [content["input_dim"], *(hidden if isinstance(hidden, list) else [None]), content["output_dim"]]
    if not all(type(size) is int and size > 0 for size in sizes) or not 1 <= len(sizes) - 2 <= MAX_HIDDEN:
        raise AdapterFileError(
            f"declares sizes {content['input_dim']!r}, {hidden!r}, {content['output_dim']!r}: "
            f"expected positive numbers and 1 to {MAX_HIDDEN} hidden sizes"
        )
    return sizes


def _linear_layers(state: Any) -> list[tuple[StoredTensor, StoredTensor]]:
    """Weight and bias of every Linear layer, in the order of the state dict."""
    if not isinstance(state, dict) or not all(isinstance(value, StoredTensor) for value in state.values()):
        raise AdapterFileError("its adapter_state_dict is not a state dict")
    names = [key.removesuffix("weight") for key in state if key.endswith("weight")]
    expected = {f"{name}{kind}" for name in names for kind in ("weight", "bias")}
    if expected != set(state):
        odd = sorted(expected ^ set(state))
        raise AdapterFileError(f"does not consist of Linear layers with bias: {', '.join(odd[:5])} is odd")
    return [(state[f"{name}weight"], state[f"{name}bias"]) for name in names]
