"""Putting adapters into a model and taking them out: either everything is in place or nothing has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from nemo_ds2_adapters.adapters.adapter import Adapter, State, check_finite
from nemo_ds2_adapters.adapters.blocks import (
    adapter_blocks,
    adapter_layer,
    adapter_parts,
    adapters_cfg,
    base_modules,
    ensure_adapters_cfg,
    list_adapters,
    merge_global_cfg,
    recorded_modules,
    share_config,
)
from nemo_ds2_adapters.adapters.fingerprint import check_base
from nemo_ds2_adapters.adapters.fitting import check_config
from nemo_ds2_adapters.adapters.names import (
    GLOBAL_CFG,
    META_CFG,
    check_adapter_name,
    check_reloadable,
    illegal_reason,
    split_name,
)
from nemo_ds2_adapters.errors import AdapterFileError, InputError

if TYPE_CHECKING:
    from nemo.core import ModelPT
    from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin
    from torch import nn

INPUT_SIZE_KEYS = ("in_features", "n_feat", "hidden_size")  # NeMo fills them in, but fails on `???`


def attach(model: ModelPT, adapter: Adapter, as_name: str | None = None, strict_base: bool = True) -> str:
    """Attach an adapter. Nothing that it says is believed before it is checked: it may come from anybody.

    Args:
        model: where to attach it; on any error it is as it was.
        adapter: from a file, a store, another model, ...
        as_name: another name for it, without module prefix.
        strict_base: refuse an adapter that was made for another base. One without info does not say for which.

    Returns:
        the name under which it is attached.

    Raises:
        AdapterFileError: the adapter does not fit the model, or is not sound; says what.
        BaseMismatchError: it was made for another base.
        AdapterNameError: the model has an adapter of that name, or the name is not legal.
    """
    import torch

    name = adapter.name if as_name is None else as_name
    if as_name is None and (reason := illegal_reason(name)):
        raise AdapterFileError(f"adapter name {name!r} {reason}: choose another one with as_name=")
    if strict_base:
        check_base(model, adapter)
    check_adapter_name(name, list_adapters(model))
    check_config(adapter)
    with undone_on_error(model):
        try:
            with torch.random.fork_rng(devices=[]):  # its random initial weights are overwritten
                add_adapter(model, f"{adapter.module}:{name}" if adapter.module else name, adapter.config)
        except ValueError as error:
            raise AdapterFileError(f"adapter {adapter.name!r} does not fit the model: {error}") from error
        parts = dict(adapter_parts(model, name))
        for (point, part), state in zip(parts.items(), _states(adapter, list(parts))):
            _load(part, state, f"{point}.{adapter.name}")
        check_finite(name, [part.state_dict() for part in parts.values()])  # in the model's precision
    return name


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
    check_adapter_name(plain_name, list_adapters(model))
    entry = plain_config(cfg, plain_name)
    for module in modules:
        _check_type(module, plain_name, entry["_target_"])
    with undone_on_error(model):
        _describe(model, prefix, plain_name, entry)
        for module in modules:
            try:
                module.add_adapter(name=name, cfg=OmegaConf.create(entry))
            except Exception as error:
                cause = error.__cause__ or error
                raise InputError(f"adapter {name!r} cannot be built from its config: {cause}") from error
        _settle(model, plain_name)
        merge_global_cfg(model, global_cfg)


def plain_config(cfg: Any, name: str) -> dict[str, Any]:
    """An adapter config as plain Python values, `enabled` included, input sizes still to be inferred.

    Raises InputError: not a config, no `_target_`, or an interpolation that cannot be resolved.
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


def _target_modules(model: ModelPT, prefix: str) -> list[AdapterModuleMixin]:
    from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin

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
    from nemo.utils.model_utils import import_class_by_path

    from nemo_ds2_adapters.modules.adapters import HEAD_PLACE, MLPHeadAdapter

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


def _describe(model: ModelPT, prefix: str, name: str, entry: dict[str, Any]) -> None:
    cfg = ensure_adapters_cfg(model)
    with open_dict(cfg):
        cfg[GLOBAL_CFG][META_CFG]["modules"][name] = prefix
        cfg[name] = entry


def _settle(model: ModelPT, name: str) -> None:
    """Bring the new modules to the base's device, dtype and mode, and check that NeMo can reload them."""
    import torch

    base = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    for _, block in adapter_blocks(model):
        if name in adapter_layer(block):
            block.adapter_layer[name].to(device=base.device, dtype=base.dtype).train(block.training)
    parts = adapter_parts(model, name)
    check_reloadable(name, {key for _, part in parts for key in part.state_dict()})


def _states(adapter: Adapter, points: list[str]) -> list[State]:
    """The adapter's weights in the order of the points where the model has room for them."""
    weights = adapter.weights
    if len(points) != len(weights):
        raise AdapterFileError(
            f"adapter {adapter.name!r} has weights for {len(weights)} points, in the model there is room for "
            f"{len(points)}"
        )
    if adapter.points is None:
        return [weights[number] for number in sorted(weights, key=int)]
    if sorted(weights) != sorted(points):
        raise AdapterFileError(f"adapter {adapter.name!r} sits in {list(weights)}, the model has {points} for it")
    return [weights[point] for point in points]


def _load(part: nn.Module, state: State, where: str) -> None:
    for key, value in part.state_dict().items():
        if state[key].shape != value.shape or state[key].is_floating_point() != value.is_floating_point():
            raise AdapterFileError(
                f"{where}.{key} is {state[key].dtype} {list(state[key].shape)} in the adapter, "
                f"{value.dtype} {list(value.shape)} in the model"
            )
    part.load_state_dict(state)


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
