"""Personal adapters for DeepSpeech2 in NVIDIA NeMo. Importing this package registers everything with NeMo."""

from nemo_ds2_adapters import modules
from nemo_ds2_adapters.adapters import (
    adapter_summary,
    add_adapter,
    average_adapters,
    copy_adapter,
    count_parameters,
    delete_adapter,
    enable_adapters,
    enabled_adapters,
    forward_both,
    freeze_base,
    inspect_adapter,
    list_adapters,
    load_adapter,
    rename_adapter,
    save_adapter,
    unfreeze_base,
)
from nemo_ds2_adapters.adapters.store import AdapterStore
from nemo_ds2_adapters.convert import convert_checkpoint
from nemo_ds2_adapters.errors import AdapterFileError, AdapterNameError, BaseMismatchError, InputError
from nemo_ds2_adapters.inference import AdapterBank, transcribe
from nemo_ds2_adapters.original_api import (
    AdapterManager,
    AdapterTrainer,
    build_deepspeech2,
    freeze_base_model,
    unfreeze_base_model,
)
from nemo_ds2_adapters.registration import allow_targets
from nemo_ds2_adapters.training import Adaptation, adapt
from nemo_ds2_adapters.version import __version__

__all__ = [
    "Adaptation",
    "AdapterBank",
    "AdapterFileError",
    "AdapterManager",
    "AdapterNameError",
    "AdapterStore",
    "AdapterTrainer",
    "BaseMismatchError",
    "InputError",
    "__version__",
    "adapt",
    "adapter_summary",
    "add_adapter",
    "average_adapters",
    "build_deepspeech2",
    "convert_checkpoint",
    "copy_adapter",
    "count_parameters",
    "delete_adapter",
    "enable_adapters",
    "enabled_adapters",
    "forward_both",
    "freeze_base",
    "freeze_base_model",
    "inspect_adapter",
    "list_adapters",
    "load_adapter",
    "modules",
    "rename_adapter",
    "save_adapter",
    "transcribe",
    "unfreeze_base",
    "unfreeze_base_model",
]

allow_targets()
