"""Where a model keeps its adapters: the modules that hold them and the config entries that describe them."""

from collections.abc import Iterator

from nemo.core import ModelPT
from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin
from omegaconf import DictConfig
from torch import nn

from nemo_ds2_adapters.adapters.names import missing_adapter

GLOBAL_CFG = AdapterModuleMixin.adapter_global_cfg_key
META_CFG = AdapterModuleMixin.adapter_metadata_cfg_key


def adapter_blocks(model: ModelPT) -> Iterator[tuple[str, AdapterModuleMixin]]:
    """Path and module of everything that can hold adapters, the model included, in the order of `modules()`.

    The adapters themselves are not searched, so the cost does not grow with their number.
    """
    yield from _walk(model, "", set())


def _walk(module: nn.Module, path: str, seen: set[int]) -> Iterator[tuple[str, AdapterModuleMixin]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    if isinstance(module, AdapterModuleMixin):
        yield path, module
    for name, child in module.named_children():
        if name != "adapter_layer":
            yield from _walk(child, f"{path}.{name}" if path else name, seen)


def adapter_layer(block: AdapterModuleMixin) -> nn.ModuleDict | dict[str, nn.Module]:
    """The adapters at one block by name; empty if it never had one."""
    return getattr(block, "adapter_layer", {})


def adapter_parts(model: ModelPT, name: str) -> list[tuple[str, nn.Module]]:
    """Path of the block and module, for every place where the named adapter sits."""
    return [(path, adapter_layer(b)[name]) for path, b in adapter_blocks(model) if name in adapter_layer(b)]


def adapters_cfg(model: ModelPT) -> DictConfig | None:
    """The config that describes the model's adapters, None if there never was one."""
    return model.cfg.get("adapters")


def share_config(model: ModelPT) -> None:
    """Let every block refer to the model's own adapter config, as NeMo's `update_adapter_cfg` does."""
    cfg = adapters_cfg(model)
    for _, block in adapter_blocks(model):
        if getattr(block, "adapter_cfg", None) is not cfg:
            block.adapter_cfg = cfg


def adapter_names(model: ModelPT) -> list[str]:
    """Names of all attached adapters, in the order in which they were attached."""
    cfg = adapters_cfg(model)
    return [] if cfg is None else [str(key) for key in cfg if key != GLOBAL_CFG]


def module_prefix(model: ModelPT, name: str) -> str:
    """The part of an adapter's full name before the colon: '' (the default module), `decoder`, ..."""
    cfg = adapters_cfg(model)
    modules = {} if cfg is None else cfg.get(GLOBAL_CFG, {}).get(META_CFG, {}).get("modules", {})
    return modules.get(name, "")


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
    cfg = adapters_cfg(model)
    if cfg is None or plain not in cfg or plain == GLOBAL_CFG:
        raise missing_adapter(name, adapter_names(model))
    if prefix and prefix != module_prefix(model, plain):
        raise missing_adapter(name, [full_name(model, plain)])
    return plain
