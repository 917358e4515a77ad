"""Using adapted models: many users in one batch."""

from nemo_ds2_adapters.inference.bank import AdapterBank, BankStatistics
from nemo_ds2_adapters.inference.transcribe import transcribe

__all__ = ["AdapterBank", "BankStatistics", "transcribe"]
