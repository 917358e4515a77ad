"""The calls of the original per-user adapter for DeepSpeech2; docs/original_api.md puts all of them beside ours."""

from nemo_ds2_adapters.adapters.parameters import freeze_base as freeze_base_model
from nemo_ds2_adapters.adapters.parameters import unfreeze_base as unfreeze_base_model
from nemo_ds2_adapters.compat.building import build_deepspeech2
from nemo_ds2_adapters.compat.manager import AdapterManager
from nemo_ds2_adapters.compat.trainer import AdapterTrainer

__all__ = ["AdapterManager", "AdapterTrainer", "build_deepspeech2", "freeze_base_model", "unfreeze_base_model"]
