"""Adapters as things of their own: names, files, life cycle."""

from nemo_ds2_adapters.adapters.attach import add_adapter, merge_global_cfg
from nemo_ds2_adapters.adapters.lifecycle import (
    average_adapters,
    copy_adapter,
    delete_adapter,
    list_adapters,
    rename_adapter,
)

__all__ = [
    "add_adapter",
    "average_adapters",
    "copy_adapter",
    "delete_adapter",
    "list_adapters",
    "merge_global_cfg",
    "rename_adapter",
]
