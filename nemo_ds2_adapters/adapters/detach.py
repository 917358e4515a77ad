"""Taking adapters out of a model: one by its name, or whatever a block has put in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from omegaconf import DictConfig, open_dict

from nemo_ds2_adapters.adapters.blocks import (
    adapter_blocks,
    adapter_layer,
    adapters_cfg,
    base_modules,
    list_adapters,
    recorded_modules,
    share_config,
)
from nemo_ds2_adapters.adapters.names import GLOBAL_CFG, META_CFG

if TYPE_CHECKING:
    from nemo.core import ModelPT


def detach(model: ModelPT, name: str) -> None:
    """Remove an adapter's modules and every trace of it in the config; what is not there is skipped."""
    for _, block in adapter_blocks(model):
        if name in adapter_layer(block):
            del block.adapter_layer[name]
            if not block.adapter_layer:
                del block.adapter_layer
    cfg, modules = adapters_cfg(model), recorded_modules(model)
    with open_dict(cfg), open_dict(modules):
        cfg.pop(name, None)
        modules.pop(name, None)


@contextmanager
def undone(model: ModelPT) -> Iterator[None]:
    """After the block, the adapters that it added are gone again, and no trace of them is left."""
    undo = _undo(model)
    try:
        yield
    finally:
        undo()


@contextmanager
def undone_on_error(model: ModelPT) -> Iterator[None]:
    """On any exception in the block, as `undone`."""
    undo = _undo(model)
    try:
        yield
    except BaseException:
        undo()
        raise


def _undo(model: ModelPT) -> Callable[[], None]:
    """What takes everything away that was added to a model since this call."""
    before = set(list_adapters(model))
    children = [(module, set(dict(module.named_children()))) for _, module in base_modules(model)]
    sections = [(section, set(section)) for section in _sections(model)]

    def undo() -> None:
        for name in set(list_adapters(model)) - before:
            detach(model, name)
        for module, names in children:
            for added in set(dict(module.named_children())) - names:
                delattr(module, added)
        for section, keys in sections:
            with open_dict(section):
                for added in set(section) - keys:
                    section.pop(added)
        share_config(model)

    return undo


def _sections(model: ModelPT) -> Iterator[DictConfig]:
    """The model's config and the sections in it that adding an adapter writes to, as far as they exist."""
    section = model.cfg
    yield section
    for key in ("adapters", GLOBAL_CFG, META_CFG, "modules"):
        if key not in section:
            return
        section = section[key]
        yield section
