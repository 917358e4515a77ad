"""Never worse than the base: what an adapter is compared with, and becomes again if it does not help."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from nemo.collections.asr.models import ASRModel
from torch import nn

from nemo_ds2_adapters.adapters.blocks import adapter_parts
from nemo_ds2_adapters.adapters.enabling import enabled_adapters
from nemo_ds2_adapters.modules import MLPHeadAdapter


class Guard:
    """What an adapter is compared with, and made into again if it does not help.

    Args:
        model: with the adapter attached, as it is before training.
        name: of the adapter.
        continued: compare it with itself as it is now, not with the base.
    """

    def __init__(self, model: ASRModel, name: str, continued: bool) -> None:
        self.name = name
        self._model = model
        self._continued = continued
        self._parts = [part for _, part in adapter_parts(model, name)]
        self._start = copy.deepcopy([part.state_dict() for part in self._parts])

    def can_restore(self) -> bool:
        """Whether `restore` is possible: a head that replaces the base's output is never the base."""
        return self._continued or not any(isinstance(p, MLPHeadAdapter) and p.mode == "replace" for p in self._parts)

    @contextmanager
    def compared_with(self) -> Iterator[None]:
        """In this block the model is what the adapter is compared with."""
        with enabled_adapters(self._model, self.name if self._continued else None):
            yield

    @torch.no_grad()
    def restore(self) -> None:
        """Make the adapter what it was compared with: for the base, its last layer becomes zero."""
        for part, state in zip(self._parts, self._start):
            if self._continued:
                part.load_state_dict(state)
            else:
                for parameter in _last_layer(part).parameters():
                    parameter.zero_()


def _last_layer(part: nn.Module) -> nn.Module:
    return [module for module in part.modules() if list(module.parameters(recurse=False))][-1]
