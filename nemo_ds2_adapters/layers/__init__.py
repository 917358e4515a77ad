"""Building blocks of DeepSpeech2 in plain torch: nothing here knows NeMo."""

from nemo_ds2_adapters.layers.activation import ACTIVATIONS, build_activation
from nemo_ds2_adapters.layers.convolution import ConvFrontEnd
from nemo_ds2_adapters.layers.lookahead import Lookahead
from nemo_ds2_adapters.layers.masking import conv_output_length, length_mask, reverse_frames
from nemo_ds2_adapters.layers.norm import MaskedBatchNorm
from nemo_ds2_adapters.layers.recurrent import RecurrentLayer
from nemo_ds2_adapters.layers.stacked import Branch, StackedAdapters, Weights

__all__ = [
    "ACTIVATIONS",
    "Branch",
    "ConvFrontEnd",
    "Lookahead",
    "MaskedBatchNorm",
    "RecurrentLayer",
    "StackedAdapters",
    "Weights",
    "build_activation",
    "conv_output_length",
    "length_mask",
    "reverse_frames",
]
