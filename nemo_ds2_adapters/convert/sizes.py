"""Sizes of a DeepSpeech2, read off its weights."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nemo_ds2_adapters.errors import InputError

GATES = {1: "rnn", 3: "gru", 4: "lstm"}


@dataclass(frozen=True)
class Sizes:
    """What the weights say about a model."""

    n_layers: int
    d_model: int  # hidden size per direction
    rnn_type: str
    bidirectional: bool
    rnn_input: int  # values per frame after the convolutions
    conv_channels: list[int]
    conv_bias: bool
    num_classes: int  # with the blank
    output_bias: bool


def read_sizes(weights: Mapping[str, Tensor], convolutions: list[str], recurrent: str, output: str) -> Sizes:
    """Sizes of a model.

    Args:
        weights: by the original's names.
        convolutions: names of the convolutions.
        recurrent: name of a recurrent layer, with `{i}` for its index.
        output: name of the output layer.

    Raises:
        InputError: a weight that is needed is missing or has another number of dimensions; names it.
    """
    first = recurrent.format(i=0)
    indices = re.compile(re.escape(recurrent).replace(re.escape("{i}"), r"(\d+)") + r"\.weight_ih_l0")
    gate_rows, rnn_input = _shape(weights, f"{first}.weight_ih_l0", 2)
    d_model = _shape(weights, f"{first}.weight_hh_l0", 2)[1]
    gates = gate_rows // max(d_model, 1)
    if gates not in GATES or gates * d_model != gate_rows:
        raise InputError(f"{first}.weight_ih_l0 has {gate_rows} rows, hidden size {d_model}: no GRU, LSTM or RNN")
    return Sizes(
        n_layers=sum(bool(indices.fullmatch(key)) for key in weights),
        d_model=d_model,
        rnn_type=GATES[gates],
        bidirectional=f"{first}.weight_ih_l0_reverse" in weights,
        rnn_input=rnn_input,
        conv_channels=[_shape(weights, f"{name}.weight", 4)[0] for name in convolutions],
        conv_bias=f"{convolutions[0]}.bias" in weights,
        num_classes=_shape(weights, f"{output}.weight", 2)[0],
        output_bias=f"{output}.bias" in weights,
    )


def conv_output_width(bins: int, sizes: Sizes) -> int:
    """Values per frame after the convolutions over `bins` values, each of which halves their number, rounded up."""
    for _ in sizes.conv_channels:
        bins = (bins + 1) // 2
    return bins * sizes.conv_channels[-1]


def _shape(weights: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in weights:
        raise InputError(f"the state dict has no {name}")
    if weights[name].dim() != dimensions:
        raise InputError(f"{name} has shape {list(weights[name].shape)}, expected {dimensions} dimensions")
    return tuple(weights[name].shape)
