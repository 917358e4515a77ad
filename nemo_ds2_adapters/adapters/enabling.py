"""Which adapters run. NeMo's own methods log, walk and copy every adapter's config; these do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from omegaconf import open_dict

from nemo_ds2_adapters.adapters.blocks import adapters_cfg, existing_name, share_config
from nemo_ds2_adapters.adapters.heads import check_one_head

if TYPE_CHECKING:
    from nemo.core import ModelPT

    from nemo_ds2_adapters.modules.enabled import EnabledFlags

_flags: WeakKeyDictionary[ModelPT, EnabledFlags] = WeakKeyDictionary()


def enabled_names(model: ModelPT) -> list[str]:
    """Names of the enabled adapters, in the order of their application."""
    from nemo_ds2_adapters.modules.enabled import EnabledFlags

    return _flags.setdefault(model, EnabledFlags()).enabled_names(adapters_cfg(model))


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
