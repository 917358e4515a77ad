"""What a converter finds out about a model of another toolkit, most of it by its weights."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Options:
    """What a caller knows about a checkpoint; None is what the checkpoint says itself."""

    rnn_type: str | None = None
    bidirectional: bool | None = None
    activation: str | None = None
    labels: list[str] | None = None
    input_dim: int | None = None
    features: dict[str, Any] | None = None


@dataclass(frozen=True)
class Original:
    """A model of another toolkit in the words of this package."""

    sizes: Sizes
    encoder: dict[str, Any]  # arguments of DeepSpeech2Encoder
    decoder: dict[str, Any]  # of DeepSpeech2Decoder, without vocabulary
    preprocessor: dict[str, Any]
    labels: list[str]
    default_blank: int  # row of the blank if no label is called so
    modules: dict[str, str]  # the original's name of a module -> ours
    notes: tuple[str, ...] = ()  # for the person who converts


def check_agreement(name: str, read: Any, given: Any, where: str = "the weights") -> None:
    """Refuse an option that contradicts what was read. Raises InputError: names both."""
    if given is not None and given != read:
        raise InputError(f"{name}={given}, but {where} are of {name}={read}")


def common_encoder(sizes: Sizes, feat_in: int) -> dict[str, Any]:
    """Arguments of `DeepSpeech2Encoder` that the weights decide; they must fit `feat_in` values per frame
    (InputError)."""
    if conv_output_width(feat_in, sizes) != sizes.rnn_input:
        halved = 2 ** len(sizes.conv_channels)
        wanted = sizes.rnn_input // sizes.conv_channels[-1] * halved
        raise InputError(
            f"the weights are for input frames of {wanted - halved + 1} to {wanted} values, not {feat_in}; give the "
            "features (sample_rate and window_size, say) or input_dim"
        )
    return {
        "feat_in": feat_in,
        "n_layers": sizes.n_layers,
        "d_model": sizes.d_model,
        "rnn_type": sizes.rnn_type,
        "bidirectional": sizes.bidirectional,
        "conv_channels": sizes.conv_channels,
        "conv_bias": sizes.conv_bias,
    }


def read_sizes(weights: Mapping[str, Tensor], convolutions: list[str], recurrent: str, output: str) -> Sizes:
    """Sizes of a model, by the names of its modules, of which `recurrent` has `{i}` for the layer's index.

    Raises InputError: a weight that is needed is missing or has another number of dimensions; names it.
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


def encoder_modules(convolutions: str, layers: str, norm: str, n_layers: int) -> dict[str, str]:
    """The original's name of each of the encoder's modules -> ours.

    `convolutions` and `layers` stand before a number; that of the convolutions counts convolution, norm and
    activation.
    """
    parts = [(i, place, part) for i in range(2) for place, part in enumerate(("conv", "norm"))]
    modules = {f"{convolutions}.{3 * i + place}": f"encoder.conv.blocks.{i}.{part}" for i, place, part in parts}
    for i in range(n_layers):
        modules[f"{layers}.{i}.rnn"] = f"encoder.layers.{i}.rnn"
        modules[f"{layers}.{i}.{norm}"] = f"encoder.layers.{i}.norm"
    return modules
