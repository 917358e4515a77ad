"""Where a model keeps its adapters: the modules that hold them and the config entries that describe them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from nemo_ds2_adapters.adapters.names import GLOBAL_CFG, META_CFG, missing_adapter
from nemo_ds2_adapters.errors import InputError

if TYPE_CHECKING:
    from nemo.core import ModelPT
    from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin
    from torch import nn


def base_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Path and module of everything in the model but its adapters, each once, in the order of `modules()`.

    The adapters are not searched, so the cost does not grow with their number.
    """
    from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin

    seen = set()

    def walk(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
        if id(module) in seen:
            return
        seen.add(id(module))
        yield path, module
        for name, child in module.named_children():
            if not (name == "adapter_layer" and isinstance(module, AdapterModuleMixin)):
                yield from walk(child, f"{path}.{name}" if path else name)

    yield from walk(model, "")


def adapter_blocks(model: nn.Module) -> Iterator[tuple[str, AdapterModuleMixin]]:
    """Path and module of everything that can hold adapters, the model included."""
    from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin

    for path, module in base_modules(model):
        if isinstance(module, AdapterModuleMixin):
            yield path, module


def adapter_layer(block: AdapterModuleMixin) -> nn.ModuleDict | dict[str, nn.Module]:
    """The adapters at one block by name; empty if it never had one."""
    return getattr(block, "adapter_layer", {})


def adapter_parts(model: ModelPT, name: str) -> list[tuple[str, nn.Module]]:
    """Path of the block and module, for every place where the named adapter sits."""
    return [(path, adapter_layer(b)[name]) for path, b in adapter_blocks(model) if name in adapter_layer(b)]


def adapters_cfg(model: ModelPT) -> DictConfig:
    """The config that describes the model's adapters; an empty one, not the model's, if there never was any."""
    return model.cfg.get("adapters", OmegaConf.create({}))


def ensure_adapters_cfg(model: ModelPT) -> DictConfig:
    """The config that describes the model's adapters, made if there is none."""
    with open_dict(model.cfg):
        if "adapters" not in model.cfg:
            model.cfg.adapters = {}
        cfg = model.cfg.adapters
        for key in (GLOBAL_CFG, META_CFG, "modules"):
            if key not in cfg:
                cfg[key] = {}
            cfg = cfg[key]
    share_config(model)
    return model.cfg.adapters


def merge_global_cfg(model: ModelPT, global_cfg: Mapping[str, object] | DictConfig | None) -> None:
    """Merge settings common to all adapters into `model.cfg.adapters.global_cfg`.

    NeMo's scripts replace that section, and with it the record of which module each adapter belongs to: who would
    overwrite that, or gives no section of plain values, gets an InputError, and nothing has changed.
    """
    if not isinstance(global_cfg, Mapping | DictConfig | None):
        raise InputError(f"global_cfg is {type(global_cfg).__name__}: give a section of settings")
    if META_CFG in (global_cfg or {}):
        raise InputError(f"global_cfg.{META_CFG} is where NeMo records what belongs where: leave it out")
    try:
        common = OmegaConf.create(dict(global_cfg or {}))
    except OmegaConfBaseException as error:
        raise InputError(f"global_cfg cannot be read: {error}") from error
    cfg = ensure_adapters_cfg(model)
    with open_dict(cfg[GLOBAL_CFG]):
        cfg[GLOBAL_CFG].merge_with(common)


def share_config(model: ModelPT) -> None:
    """Let every block refer to the model's own adapter config, as NeMo's `update_adapter_cfg` does."""
    cfg = adapters_cfg(model)
    for _, block in adapter_blocks(model):
        if getattr(block, "adapter_cfg", None) is not cfg:
            block.adapter_cfg = cfg


def list_adapters(model: ModelPT) -> list[str]:
    """Names of all attached adapters without module prefix, enabled or not, in the order of their application."""
    return [str(key) for key in adapters_cfg(model) if key != GLOBAL_CFG]


def recorded_modules(model: ModelPT) -> DictConfig:
    """The record of the module prefix that each adapter was added with; '' is the default module."""
    meta = adapters_cfg(model).get(GLOBAL_CFG, {}).get(META_CFG, {})
    return meta.get("modules", OmegaConf.create({}))


def module_prefix(model: ModelPT, name: str) -> str:
    """The part of an adapter's full name before the colon: '', `decoder`, ..."""
    return recorded_modules(model).get(name, "")


def full_name(model: ModelPT, name: str) -> str:
    """`encoder:user_john` if the adapter was added with a module prefix, else `user_john`."""
    prefix = module_prefix(model, name)
    return f"{prefix}:{name}" if prefix else name


def existing_name(model: ModelPT, name: str) -> str:
    """The adapter's name without module prefix. Raises AdapterNameError: there is none, or not in that module."""
    prefix, _, plain = str(name).rpartition(":")
    if plain not in adapters_cfg(model) or plain == GLOBAL_CFG:
        raise missing_adapter(name, list_adapters(model))
    if prefix and not is_in_modules(model, plain, prefix):
        raise missing_adapter(name, [full_name(model, plain)])
    return plain


def is_in_modules(model: ModelPT, name: str, prefix: str) -> bool:
    """Whether the adapter was added to exactly the modules of a prefix; '' is the default module."""
    default = model.default_adapter_module_name
    return (module_prefix(model, name) or default) == (prefix or default)
