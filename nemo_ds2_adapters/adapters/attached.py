"""Reading adapters out of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from nemo_ds2_adapters.adapters.adapter import Adapter, Info, check_finite
from nemo_ds2_adapters.adapters.blocks import adapter_parts, adapters_cfg, existing_name, module_prefix
from nemo_ds2_adapters.adapters.fingerprint import describe_base, fingerprint
from nemo_ds2_adapters.errors import AdapterNameError, InputError
from nemo_ds2_adapters.version import __version__

if TYPE_CHECKING:
    from nemo.core import ModelPT


def attached_adapter(model: ModelPT, name: str, metadata: Mapping[str, Any] | None = None) -> Adapter:
    """An attached adapter as a value: copies of its weights on the CPU, and for which base it is.

    It says that it is enabled, whether it is or not.

    Args:
        model: where it is attached.
        name: with or without module prefix.
        metadata: plain values about it: user id, seconds of speech, word error rates, language, ...

    Raises:
        AdapterNameError: the model has no such adapter.
        InputError: the adapter has no modules.
        AdapterFileError: a weight is not finite.
    """
    return attached_adapters(model, [name], metadata)[0]


def attached_adapters(
    model: ModelPT, names: Sequence[str], metadata: Mapping[str, Any] | None = None
) -> list[Adapter]:
    """As `attached_adapter`, several that share what is said about them; none named is an AdapterNameError."""
    if not names:
        raise AdapterNameError("there is no adapter to save: the model has none, or no name was given")
    adapters = [without_info(model, name) for name in names]
    info = Info(
        fingerprint=fingerprint(model),
        base=describe_base(model),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={name: version(name) for name in ("nemo_toolkit", "torch")} | {"nemo_ds2_adapters": __version__},
        metadata=dict(metadata or {}),
    )
    return [replace(adapter, info=info) for adapter in adapters]


def without_info(model: ModelPT, name: str) -> Adapter:
    """As `attached_adapter`, for a model that it does not leave: nothing is said about the base, which costs time."""
    name = existing_name(model, name)
    parts = adapter_parts(model, name)
    if not parts:
        raise InputError(f"adapter {name!r} has a config but no modules, its module was replaced: delete it")
    config: Any = OmegaConf.to_container(adapters_cfg(model)[name], resolve=True)
    weights = {
        point: {key: value.detach().cpu().clone() for key, value in part.state_dict().items()} for point, part in parts
    }
    check_finite(name, list(weights.values()))
    return Adapter(name, {**config, "enabled": True}, weights, module_prefix(model, name))
