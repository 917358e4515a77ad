"""A store of many users' adapters."""

from nemo_ds2_adapters.adapters.store.check import StoreReport
from nemo_ds2_adapters.adapters.store.index import Entry
from nemo_ds2_adapters.adapters.store.opening import is_store
from nemo_ds2_adapters.adapters.store.store import AdapterStore
from nemo_ds2_adapters.adapters.store.version import Version

__all__ = ["AdapterStore", "Entry", "StoreReport", "Version", "is_store"]
