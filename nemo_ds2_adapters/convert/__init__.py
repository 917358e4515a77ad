"""DeepSpeech2 models of other toolkits as NeMo models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"conversion": ["convert_checkpoint"]})
