"""Personal adapters for DeepSpeech2 in NVIDIA NeMo.

Names are loaded when they are first used: what needs no model need not import NeMo. Whoever restores a model finds
this package's classes registered with NeMo.
"""

import lazy_loader
import wrapt

from nemo_ds2_adapters.version import __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


@wrapt.when_imported("nemo.collections.asr.models")  # which every NeMo program imports before it restores a model
def _register(module: object) -> None:
    from nemo_ds2_adapters.modules.registration import register

    register()
