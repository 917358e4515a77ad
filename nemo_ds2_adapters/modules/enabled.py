"""Which adapters are enabled, read at a cost that a thousand attached ones do not make felt."""

from operator import is_
from typing import Any

from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin
from omegaconf import DictConfig


class EnabledFlags:
    """The `enabled` flags of an adapter config.

    Reading one flag through OmegaConf takes about 0.1 ms. This keeps each flag's node, so it sees a change made by
    whatever means, and looks the nodes up again when an entry came, went or was replaced.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._entries: list[Any] = []
        self._flags: list[Any] = []

    def enabled_names(self, cfg: DictConfig) -> list[str]:
        """Names of the enabled adapters, in the order of the config, which is the order of their application."""
        content: Any = cfg._content  # a dict of nodes
        entries = list(content.values())
        if list(content) != self._names or not all(map(is_, entries, self._entries)):
            self._names = list(content)
            self._entries = entries
            # The section common to all adapters has no such flag.
            self._flags = [(name, node._content.get("enabled")) for name, node in content.items()]
        return [name for name, flag in self._flags if flag is not None and flag._val]

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return EnabledFlags, ()  # a copied or pickled model has another config


class QuickAdapterMixin(AdapterModuleMixin):
    """NeMo's adapter mixin, except that asking for the enabled adapters does not read every adapter's config."""

    def get_enabled_adapters(self) -> list[str]:
        """Names of the enabled adapters that this module holds, in the order of their application."""
        if not self.is_adapter_available():
            return []
        if not hasattr(self, "_enabled_flags"):
            self._enabled_flags = EnabledFlags()
        types = tuple(self.get_accepted_adapter_types())
        return [
            name
            for name in self._enabled_flags.enabled_names(self.adapter_cfg)
            if name in self.adapter_layer and (not types or isinstance(self.adapter_layer[name], types))
        ]
