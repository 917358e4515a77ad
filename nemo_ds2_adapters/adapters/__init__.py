"""Adapters as things of their own: names, files, life cycle."""

from nemo_ds2_adapters.adapters.attach import add_adapter, merge_global_cfg
from nemo_ds2_adapters.adapters.base import fingerprint
from nemo_ds2_adapters.adapters.enabling import enable_adapters, enabled_adapters
from nemo_ds2_adapters.adapters.file import load_adapter, save_adapter, save_original_adapter
from nemo_ds2_adapters.adapters.heads import forward_both
from nemo_ds2_adapters.adapters.lifecycle import (
    average_adapters,
    copy_adapter,
    delete_adapter,
    list_adapters,
    rename_adapter,
)
from nemo_ds2_adapters.adapters.parameters import count_parameters, freeze_base, unfreeze_base
from nemo_ds2_adapters.adapters.reading import inspect_adapter
from nemo_ds2_adapters.adapters.store import AdapterStore
from nemo_ds2_adapters.adapters.summary import adapter_summary
from nemo_ds2_adapters.adapters.users import adapter_name_for_user, check_user_id, user_hash

__all__ = [
    "AdapterStore",
    "adapter_name_for_user",
    "adapter_summary",
    "add_adapter",
    "average_adapters",
    "check_user_id",
    "copy_adapter",
    "count_parameters",
    "delete_adapter",
    "enable_adapters",
    "enabled_adapters",
    "fingerprint",
    "forward_both",
    "freeze_base",
    "inspect_adapter",
    "list_adapters",
    "load_adapter",
    "merge_global_cfg",
    "rename_adapter",
    "save_adapter",
    "save_original_adapter",
    "unfreeze_base",
    "user_hash",
]
