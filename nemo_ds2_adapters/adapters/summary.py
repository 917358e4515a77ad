"""A table of a model's adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from nemo_ds2_adapters.adapters.blocks import adapter_parts, adapters_cfg, module_prefix
from nemo_ds2_adapters.adapters.enabling import enabled_names
from nemo_ds2_adapters.adapters.lifecycle import list_adapters
from nemo_ds2_adapters.adapters.parameters import count_parameters

if TYPE_CHECKING:
    from nemo.core import ModelPT


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
