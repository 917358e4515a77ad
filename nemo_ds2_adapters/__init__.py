"""Personal adapters for DeepSpeech2 in NVIDIA NeMo. Importing this package registers everything with NeMo."""

from nemo_ds2_adapters import modules
from nemo_ds2_adapters.registration import allow_targets

__version__ = "0.1.0"
__all__ = ["modules"]

allow_targets()
