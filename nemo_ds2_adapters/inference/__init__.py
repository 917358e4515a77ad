"""Using adapted models: many users in one batch."""

from nemo_ds2_adapters.inference.bank import AdapterBank
from nemo_ds2_adapters.inference.residents import BankStatistics
from nemo_ds2_adapters.inference.transcribe import transcribe

__all__ = ["AdapterBank", "BankStatistics", "transcribe"]
