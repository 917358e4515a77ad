"""Personal adapters for DeepSpeech2 in NVIDIA NeMo. Importing this package registers everything with NeMo."""

from nemo_ds2_adapters import modules
from nemo_ds2_adapters.registration import allow_targets
from nemo_ds2_adapters.version import __version__

__all__ = ["__version__", "modules"]

allow_targets()
