"""What a converter finds out about a model of another toolkit."""

from dataclasses import dataclass
from typing import Any

from nemo_ds2_adapters.convert.sizes import Sizes, conv_output_width
from nemo_ds2_adapters.errors import InputError


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
    """Refuse an option that contradicts what was read.

    Raises:
        InputError: names both.
    """
    if given is not None and given != read:
        raise InputError(f"{name}={given}, but {where} are of {name}={read}")


def common_encoder(sizes: Sizes, feat_in: int) -> dict[str, Any]:
    """Arguments of `DeepSpeech2Encoder` that the weights decide.

    Raises:
        InputError: the convolutions over `feat_in` values do not give what the recurrent layers take.
    """
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
