"""Which adapters run. NeMo's own methods log, walk and copy every adapter's config; these do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from omegaconf import open_dict

from nemo_ds2_adapters.adapters.blocks import adapter_layer, adapters_cfg, existing_name, share_config
from nemo_ds2_adapters.errors import InputError

if TYPE_CHECKING:
    from nemo.core import ModelPT
    from torch import Tensor


def enabled_names(model: ModelPT) -> list[str]:
    """Names of the enabled adapters, in the order of their application."""
    from nemo_ds2_adapters.modules.mixins import enabled_names as read

    return read(adapters_cfg(model))


def enable_adapters(model: ModelPT, names: str | Sequence[str] | None) -> list[str]:
    """Enable exactly the named adapters and disable all others.

    Args:
        model: where they are attached.
        names: one name, several, or None for the base alone. Several run in the order of `list_adapters`.

    Returns:
        names of the adapters that were enabled before.

    Raises:
        AdapterNameError: an adapter does not exist; nothing has changed.
        InputError: several are head adapters; nothing has changed.
    """
    wanted = [existing_name(model, name) for name in ([names] if isinstance(names, str) else names or [])]
    check_one_head(model, wanted)
    before = enabled_names(model)
    _set_enabled(model, set(before) - set(wanted), False)
    _set_enabled(model, set(wanted) - set(before), True)
    return before


@contextmanager
def enabled_adapters(model: ModelPT, names: str | Sequence[str] | None) -> Iterator[ModelPT]:
    """Run a block with exactly the named adapters; afterwards, also on exceptions, everything is as it was.

    Adapters that were attached or deleted in the block are left alone.

    Raises:
        AdapterNameError: an adapter does not exist; the block does not run.
        InputError: several are head adapters; the block does not run.
    """
    attached = set(adapters_cfg(model))
    before = enable_adapters(model, names)
    try:
        yield model
    finally:
        now = set(enabled_names(model))
        present = attached & set(adapters_cfg(model))
        _set_enabled(model, (now & attached) - set(before), False)
        _set_enabled(model, (set(before) & present) - now, True)


def _set_enabled(model: ModelPT, names: set[str], enabled: bool) -> None:
    cfg = adapters_cfg(model)
    if getattr(model, "adapter_cfg", None) is not cfg:  # someone gave the model another config
        share_config(model)
    for name in names:
        with open_dict(cfg[name]):
            cfg[name]["enabled"] = enabled


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
    """Refuse to enable several head adapters together. Raises InputError: names them."""
    if len(names) < 2:
        return
    from nemo_ds2_adapters.modules import MLPHeadAdapter

    layer = adapter_layer(getattr(model, "decoder", None))
    heads = [name for name in names if name in layer and isinstance(layer[name], MLPHeadAdapter)]
    if len(heads) > 1:
        raise InputError(f"{', '.join(heads)} are head adapters, and only one can run at a time: enable one of them")
