"""Adding an adapter so that either everything is in place or nothing has changed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Any

import torch
from nemo.core import ModelPT
from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin
from nemo.utils.model_utils import import_class_by_path
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from nemo_ds2_adapters.adapters.blocks import (
    GLOBAL_CFG,
    META_CFG,
    adapter_blocks,
    adapter_layer,
    adapter_names,
    adapter_parts,
    adapters_cfg,
    base_modules,
    recorded_modules,
    share_config,
)
from nemo_ds2_adapters.adapters.names import check_adapter_name, check_reloadable, split_name
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules import MLPHeadAdapter
from nemo_ds2_adapters.modules.head_adapter import HEAD_PLACE

INPUT_SIZE_KEYS = ("in_features", "n_feat", "hidden_size")  # NeMo fills them in, but fails on `???`


def add_adapter(model: ModelPT, name: str, cfg: Any, global_cfg: Mapping[str, Any] | DictConfig | None = None) -> None:
    """Add an adapter, enabled unless `cfg.enabled` is false; other adapters stay as they are.

    What NeMo's `model.add_adapter` does, with the checks first: on any error the model and its config are as they
    were. The adapter comes on the base's device, in its dtype and in its train/eval mode.

    Args:
        model: a NeMo ASR model whose modules support adapters.
        name: `user_john`, or with the modules it goes to, `encoder:user_john`, `encoder+decoder:user_john`.
        cfg: the adapter's config: dataclass, dict or `DictConfig` with `_target_`.
        global_cfg: keys to merge into the settings common to all adapters, `model.cfg.adapters.global_cfg`.

    Raises:
        AdapterNameError: the name is not legal or exists.
        InputError: the module or the config does not fit; the cause is named.
    """
    prefix, plain_name = split_name(name)
    modules = _target_modules(model, prefix)
    check_adapter_name(plain_name, adapter_names(model))
    entry = plain_config(cfg, plain_name)
    common = _common_settings(global_cfg)
    for module in modules:
        _check_type(module, plain_name, entry["_target_"])
    with undone_on_error(model, plain_name):
        _describe(model, prefix, plain_name, entry)
        for module in modules:
            try:
                module.add_adapter(name=name, cfg=OmegaConf.create(entry))
            except Exception as error:
                cause = error.__cause__ or error
                raise InputError(f"adapter {name!r} cannot be built from its config: {cause}") from error
        _settle(model, plain_name)
        _merge(model, common)


def plain_config(cfg: Any, name: str) -> dict[str, Any]:
    """An adapter config as plain Python values, `enabled` included, input sizes still to be inferred.

    Raises:
        InputError: not a config, no `_target_`, or an interpolation that cannot be resolved.
    """
    try:
        # Not OmegaConf.structured: it refuses the None that stands for an input size to be inferred.
        source = asdict(cfg) if is_dataclass(cfg) and not isinstance(cfg, type) else cfg
        node = source if isinstance(source, DictConfig) else OmegaConf.create(source)
        entry = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else None
    except (OmegaConfBaseException, ValueError) as error:
        raise InputError(f"the config of adapter {name!r} cannot be read: {error}") from error
    if not isinstance(entry, dict):
        raise InputError(f"the config of adapter {name!r} is {type(cfg).__name__}: give a dataclass or a dict")
    if not isinstance(entry.get("_target_"), str):
        raise InputError(f"the config of adapter {name!r} has no _target_: give the path of the adapter's class")
    for key in INPUT_SIZE_KEYS:
        if entry.get(key) == "???":
            entry[key] = None
    entry.setdefault("enabled", True)
    return entry  # type: ignore[return-value]


def merge_global_cfg(model: ModelPT, global_cfg: Mapping[str, Any] | DictConfig) -> None:
    """Merge settings common to all adapters into `model.cfg.adapters.global_cfg`.

    NeMo's scripts replace that section, and with it the record of which module each adapter belongs to.

    Raises:
        InputError: it is not a section of plain values, or would overwrite that record.
    """
    common = _common_settings(global_cfg)
    _ensure_adapters_cfg(model)
    _merge(model, common)


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


def _target_modules(model: ModelPT, prefix: str) -> list[AdapterModuleMixin]:
    if not hasattr(model, "adapter_module_names"):
        raise InputError(f"{type(model).__name__} is not a NeMo model with adapters")
    modules = []
    for module_name in prefix.split("+"):
        attribute = module_name or model.default_adapter_module_name
        module = getattr(model, str(attribute), None)
        if module_name not in model.adapter_module_names or module is None:
            have = [m for m in model.adapter_module_names if m and hasattr(model, m)]
            raise InputError(f"{type(model).__name__} has no module {module_name!r}: expected {', '.join(have)}")
        if not isinstance(module, AdapterModuleMixin):
            raise InputError(
                f"{attribute} is a {type(module).__name__}, which does not hold adapters: "
                f"call model.replace_adapter_compatible_modules() first, or choose another module"
            )
        modules.append(module)
    return modules


def _check_type(module: AdapterModuleMixin, name: str, target: str) -> None:
    """Conformer's encoder names the types it takes, but only its layers look, and they name none."""
    try:
        adapter_class = import_class_by_path(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"adapter {name!r}: there is no class {target!r} ({error})") from error
    types = tuple(module.get_accepted_adapter_types())
    if types and not (isinstance(adapter_class, type) and issubclass(adapter_class, types)):
        accepted = ", ".join(sorted(accepted.__name__ for accepted in types))
        is_head = isinstance(adapter_class, type) and issubclass(adapter_class, MLPHeadAdapter)
        raise InputError(
            f"adapter {name!r}: {type(module).__name__} does not take {target!r}, it takes {accepted}"
            + (f"; {HEAD_PLACE}" if is_head else "")
        )


def _ensure_adapters_cfg(model: ModelPT) -> DictConfig:
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


def _common_settings(global_cfg: Mapping[str, Any] | DictConfig | None) -> DictConfig:
    if not isinstance(global_cfg, Mapping | DictConfig | None):
        raise InputError(f"global_cfg is {type(global_cfg).__name__}: give a section of settings")
    if META_CFG in (global_cfg or {}):
        raise InputError(f"global_cfg.{META_CFG} is where NeMo records what belongs where: leave it out")
    try:
        return OmegaConf.create(dict(global_cfg or {}))
    except OmegaConfBaseException as error:
        raise InputError(f"global_cfg cannot be read: {error}") from error


def _merge(model: ModelPT, common: DictConfig) -> None:
    cfg = adapters_cfg(model)
    with open_dict(cfg[GLOBAL_CFG]):
        cfg[GLOBAL_CFG].merge_with(common)


def _describe(model: ModelPT, prefix: str, name: str, entry: dict[str, Any]) -> None:
    cfg = _ensure_adapters_cfg(model)
    with open_dict(cfg):
        cfg[GLOBAL_CFG][META_CFG]["modules"][name] = prefix
        cfg[name] = entry


def _settle(model: ModelPT, name: str) -> None:
    """Bring the new modules to the base's device, dtype and mode, and check that NeMo can reload them."""
    base = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    for _, block in adapter_blocks(model):
        if name in adapter_layer(block):
            block.adapter_layer[name].to(device=base.device, dtype=base.dtype).train(block.training)
    parts = adapter_parts(model, name)
    check_reloadable(name, {key for _, part in parts for key in part.state_dict()})


@contextmanager
def undone_on_error(model: ModelPT, name: str) -> Iterator[None]:
    """On any exception in the block, take the adapter `name` away again and leave no trace of it."""
    children = [(module, set(dict(module.named_children()))) for _, module in base_modules(model)]
    sections = [(section, set(section)) for section in _sections(model)]
    try:
        yield
    except BaseException:
        detach(model, name)
        for module, names in children:
            for added in set(dict(module.named_children())) - names:
                delattr(module, added)
        for section, keys in sections:
            with open_dict(section):
                for added in set(section) - keys:
                    section.pop(added)
        share_config(model)
        raise


def _sections(model: ModelPT) -> Iterator[DictConfig]:
    """The model's config and the sections in it that adding an adapter writes to, as far as they exist."""
    section = model.cfg
    yield section
    for key in ("adapters", GLOBAL_CFG, META_CFG, "modules"):
        if key not in section:
            return
        section = section[key]
        yield section
