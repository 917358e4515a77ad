"""The base's parameters and the adapters': freezing, counting, and a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table

from nemo_ds2_adapters.adapters.blocks import adapter_parts, adapters_cfg, base_modules, list_adapters, module_prefix
from nemo_ds2_adapters.adapters.enabling import enabled_names

if TYPE_CHECKING:
    from nemo.core import ModelPT
    from torch import nn


def freeze_base(model: ModelPT) -> None:
    """Make the base constant: no gradients, and eval mode, so that no dropout acts and no statistics change.

    Adapters stay as they are. A later `model.train()` brings dropout back, and the batch statistics of other norms
    than this package's; adapter training therefore keeps the frozen part in eval mode.
    """
    for path, module in base_modules(model):
        module.training = module.training and path == ""  # the model itself remembers its mode
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)


def unfreeze_base(model: ModelPT) -> None:
    """Make the base trainable: gradients, the model's own train/eval mode, and running statistics that follow.

    The last undoes NeMo's `unfreeze_enabled_adapters`, which switches batch norms' statistics off for good.
    """
    from torch.nn import BatchNorm1d, BatchNorm2d, BatchNorm3d

    for _, module in base_modules(model):
        module.training = model.training
        if isinstance(module, BatchNorm1d | BatchNorm2d | BatchNorm3d):
            module.track_running_stats = module.running_mean is not None
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(True)


def count_parameters(model: ModelPT, trainable_only: bool = False) -> dict[str, int]:
    """Number of parameters: `total`, and of these `base` and `adapter` (all adapters together).

    Args:
        model: any NeMo model.
        trainable_only: count only those that require gradients.
    """
    total = _count(model.parameters(), trainable_only)
    base = _count((p for _, m in base_modules(model) for p in m.parameters(recurse=False)), trainable_only)
    return {"total": total, "base": base, "adapter": total - base}


def _count(parameters: Iterable[nn.Parameter], trainable_only: bool) -> int:
    return sum(p.numel() for p in set(parameters) if p.requires_grad or not trainable_only)


def adapter_summary(model: ModelPT) -> Table:
    """One row per adapter: name, modules, type, parameters, share of the base's, enabled, trainable.

    Print it with `rich.print(adapter_summary(model))`.
    """
    base = count_parameters(model)["base"]
    table = Table("name", "modules", "type", title=f"{type(model).__name__}, {base:,} base parameters")
    for column in ("parameters", "of base"):
        table.add_column(column, justify="right")
    table.add_column("enabled")
    table.add_column("trainable")
    enabled = set(enabled_names(model))
    for name in list_adapters(model):
        parameters = [p for _, part in adapter_parts(model, name) for p in part.parameters()]
        count = sum(p.numel() for p in parameters)
        table.add_row(
            name,
            module_prefix(model, name) or str(model.default_adapter_module_name),
            str(adapters_cfg(model)[name].get("_target_", "")).rpartition(".")[2],
            f"{count:,}",
            f"{count / base:.2%}" if base else "",
            "yes" if name in enabled else "no",
            "yes" if any(p.requires_grad for p in parameters) else "no",
        )
    return table
