"""A store of many users' adapters."""

from nemo_ds2_adapters.store.check import StoreReport
from nemo_ds2_adapters.store.opening import is_store
from nemo_ds2_adapters.store.store import AdapterStore
from nemo_ds2_adapters.store.version import Entry, Version

__all__ = ["AdapterStore", "Entry", "StoreReport", "Version", "is_store"]
