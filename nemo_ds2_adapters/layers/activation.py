"""Activations by name."""

from collections.abc import Callable

from torch import nn


def clipped_relu() -> nn.Module:
    """`min(max(x, 0), 20)`, the activation of DeepSpeech2 (Amodei et al. 2015, section 3.1)."""
    return nn.Hardtanh(0.0, 20.0)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "clipped_relu": clipped_relu,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}


def build_activation(name: str) -> nn.Module:
    """The activation called `name`. Raises ValueError: `name` is not one of `ACTIVATIONS`."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name!r} is unknown, expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()
