"""DeepSpeech2 models of other toolkits as NeMo models."""

from nemo_ds2_adapters.convert.conversion import convert_checkpoint

__all__ = ["convert_checkpoint"]
