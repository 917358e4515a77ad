"""The calls of the original per-user adapter for DeepSpeech2; docs/original_api.md puts all of them beside ours."""

from nemo_ds2_adapters.adapters import freeze_base as freeze_base_model
from nemo_ds2_adapters.adapters import unfreeze_base as unfreeze_base_model
from nemo_ds2_adapters.original_api.building import build_deepspeech2
from nemo_ds2_adapters.original_api.manager import AdapterManager
from nemo_ds2_adapters.original_api.trainer import AdapterTrainer

__all__ = ["AdapterManager", "AdapterTrainer", "build_deepspeech2", "freeze_base_model", "unfreeze_base_model"]
