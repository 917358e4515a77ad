"""A NeMo model that recognises batches of many users, and is afterwards as it was."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from nemo.collections.asr.models import EncDecCTCModel
from torch import Tensor

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.enabling import enabled_adapters, enabled_names
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.store.store import AdapterStore

RESIDENT_BATCHES = 4  # a bank made for one call has room for this many batches of different users


def bank_of(
    model: EncDecCTCModel,
    store: AdapterStore | AdapterBank | None,
    batch_size: int,
    default: Adapter | None = None,
) -> AdapterBank:
    """The bank, or one for the adapters of a store, or for those attached to the model.

    Args:
        model: a DeepSpeech2.
        store: where adapters are.
        batch_size: of the batches to come.
        default: for people who have no adapter.

    Raises:
        InputError: the bank is for another model or has its own default, or the model takes no adapters per row.
    """
    if not isinstance(store, AdapterBank):
        return AdapterBank(model, store, default, capacity=RESIDENT_BATCHES * batch_size)
    if default is not None:
        raise InputError("a default is given beside a bank: make the bank with it, AdapterBank(..., default=)")
    store.check_model(model)
    return store


@contextmanager
def serving(model: EncDecCTCModel, routed: bool) -> Iterator[None]:
    """Inference in this block; afterwards modes and enabled adapters are as they were found.

    Args:
        model: put into eval mode.
        routed: whether adapters are routed to rows, so that none may be enabled for all.
    """
    modes = [(module, module.training) for module in model.modules()]
    disabled = enabled_adapters(model, None) if routed and enabled_names(model) else nullcontext()
    try:
        with disabled, torch.inference_mode():
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training


def on_device(model: EncDecCTCModel, signals: np.ndarray, lengths: np.ndarray) -> tuple[Tensor, Tensor]:
    """A batch as the model takes it."""
    device = next(model.parameters()).device
    return torch.from_numpy(signals).to(device), torch.from_numpy(lengths).to(device)
