"""What NeMo's classes do not do as it should be: keeping their mode, and reading which adapters are enabled fast."""

from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin
from nemo.core.classes.module import NeuralModule
from omegaconf import DictConfig


def enabled_names(cfg: DictConfig) -> list[str]:
    """Names of the enabled adapters in a config of adapters, in its order, which is the order of their application."""
    common = AdapterModuleMixin.adapter_global_cfg_key
    return [
        str(name)
        for name, entry in cfg.items_ex(resolve=False)
        if name != common and dict(entry.items_ex(resolve=False)).get("enabled")
    ]


class QuickAdapterMixin(AdapterModuleMixin):
    """NeMo's adapter mixin, with this reading of the config."""

    def get_enabled_adapters(self) -> list[str]:
        """Names of the enabled adapters that this module holds, in the order of their application."""
        if not self.is_adapter_available():
            return []
        types, layer = tuple(self.get_accepted_adapter_types()), self.adapter_layer
        own = [name for name in enabled_names(self.adapter_cfg) if name in layer]
        return [name for name in own if not types or isinstance(layer[name], types)]


class KeepsModeModule(NeuralModule):
    """A neural module whose partial unfreeze leaves the train/eval mode alone.

    NeMo's `transcribe()` freezes encoder and decoder and then unfreezes them partially, which puts them in
    training mode even when the model was in eval mode: the next forward would use dropout and batch statistics.
    """

    def unfreeze(self, partial: bool = False) -> None:
        """Unfreeze parameters; with `partial` only those that were trainable before `freeze()`."""
        training = self.training
        super().unfreeze(partial=partial)
        if partial:
            self.train(training)
