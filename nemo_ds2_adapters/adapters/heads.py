"""Head adapters, which make a person's own logits: one may run at a time, and the base's output is there as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nemo_ds2_adapters.adapters.blocks import adapter_layer
from nemo_ds2_adapters.errors import InputError

if TYPE_CHECKING:
    from nemo.core import ModelPT
    from torch import Tensor


def forward_both(model: ModelPT, input_signal: Tensor, input_signal_length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One forward pass, two results: what the model says without its enabled head adapter, and with it.

    Enabled adapters of the encoder act on both. Nothing is masked as in training (no SpecAugment).

    Args:
        model: a DeepSpeech2 with one enabled head adapter.
        input_signal: `[B, T]` audio samples.
        input_signal_length: `[B]` samples of each utterance.

    Returns:
        log probabilities of the base and of the person, both `[B, T', V]` with the blank last, and `[B]`, their real
        frames.

    Raises:
        InputError: the model has another decoder, or not exactly one head adapter is enabled.
    """
    from nemo_ds2_adapters.modules import DeepSpeech2Decoder

    decoder = getattr(model, "decoder", None)
    if not isinstance(decoder, DeepSpeech2Decoder):
        raise InputError(f"the model's decoder is a {type(decoder).__name__}, which takes no head adapters")
    features, lengths = model.preprocessor(input_signal=input_signal, length=input_signal_length)
    encoded, encoded_lengths = model.encoder(audio_signal=features, length=lengths)
    base, personal = decoder.forward_both(encoded)
    return base, personal, encoded_lengths


def check_one_head(model: ModelPT, names: Sequence[str]) -> None:
    """Refuse to enable several head adapters together.

    Raises:
        InputError: names them.
    """
    if len(names) < 2:
        return
    from nemo_ds2_adapters.modules import MLPHeadAdapter

    layer = adapter_layer(getattr(model, "decoder", None))
    heads = [name for name in names if name in layer and isinstance(layer[name], MLPHeadAdapter)]
    if len(heads) > 1:
        raise InputError(f"{', '.join(heads)} are head adapters, and only one can run at a time: enable one of them")
