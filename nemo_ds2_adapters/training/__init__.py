"""Training: base models and adapters."""

from nemo_ds2_adapters.training import tri_stage  # makes the schedule known to NeMo

__all__ = ["tri_stage"]
