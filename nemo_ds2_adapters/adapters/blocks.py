"""Where a model keeps its adapters: the modules that hold them and the config entries that describe them."""

from collections.abc import Iterator

from nemo.core import ModelPT
from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin
from omegaconf import DictConfig, OmegaConf
from torch import nn

from nemo_ds2_adapters.adapters.names import missing_adapter

GLOBAL_CFG = AdapterModuleMixin.adapter_global_cfg_key
META_CFG = AdapterModuleMixin.adapter_metadata_cfg_key


def base_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Path and module of everything in the model but its adapters, each once, in the order of `modules()`.

    The adapters are not searched, so the cost does not grow with their number.
    """
    yield from _walk(model, "", set())


def _walk(module: nn.Module, path: str, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    yield path, module
    for name, child in module.named_children():
        if not (name == "adapter_layer" and isinstance(module, AdapterModuleMixin)):
            yield from _walk(child, f"{path}.{name}" if path else name, seen)


def adapter_blocks(model: nn.Module) -> Iterator[tuple[str, AdapterModuleMixin]]:
    """Path and module of everything that can hold adapters, the model included."""
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


def share_config(model: ModelPT) -> None:
    """Let every block refer to the model's own adapter config, as NeMo's `update_adapter_cfg` does."""
    cfg = adapters_cfg(model)
    for _, block in adapter_blocks(model):
        if getattr(block, "adapter_cfg", None) is not cfg:
            block.adapter_cfg = cfg


def adapter_names(model: ModelPT) -> list[str]:
    """Names of all attached adapters, in the order of their application."""
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
    """The adapter's name without module prefix.

    Raises:
        AdapterNameError: the model has no such adapter, or not in that module.
    """
    prefix, _, plain = str(name).rpartition(":")
    if plain not in adapters_cfg(model) or plain == GLOBAL_CFG:
        raise missing_adapter(name, adapter_names(model))
    if prefix and not is_in_modules(model, plain, prefix):
        raise missing_adapter(name, [full_name(model, plain)])
    return plain


def is_in_modules(model: ModelPT, name: str, prefix: str) -> bool:
    """Whether the adapter was added to exactly the modules of a prefix; '' is the default module."""
    default = model.default_adapter_module_name
    return (module_prefix(model, name) or default) == (prefix or default)
