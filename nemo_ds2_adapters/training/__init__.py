"""Training: base models and adapters."""

from nemo_ds2_adapters.training import tri_stage  # makes the schedule known to NeMo
from nemo_ds2_adapters.training.adapt import adapt
from nemo_ds2_adapters.training.outcome import Adaptation

__all__ = ["Adaptation", "adapt", "tri_stage"]
