"""The classes that a saved `.nemo` names. Their paths here are a contract: archives hold them for ever.

Every class carries this package as its `__module__`, wherever it is defined, because NeMo's adapter registry
writes `cls.__module__` into saved configs.
"""

from nemo.core.classes.mixins.adapter_mixins import get_registered_adapter, register_adapter

from nemo_ds2_adapters.modules.adapters import MLPAdapter, MLPAdapterConfig, MLPHeadAdapter, MLPHeadAdapterConfig
from nemo_ds2_adapters.modules.decoder import DeepSpeech2Decoder, DeepSpeech2DecoderConfig
from nemo_ds2_adapters.modules.encoder import DeepSpeech2Encoder, DeepSpeech2EncoderConfig
from nemo_ds2_adapters.modules.encoder_adapter import DeepSpeech2EncoderAdapter, DeepSpeech2EncoderAdapterConfig
from nemo_ds2_adapters.modules.spectrogram import LogSpectrogramPreprocessor, LogSpectrogramPreprocessorConfig
from nemo_ds2_adapters.modules.streaming_mel import StreamingMelPreprocessor, StreamingMelPreprocessorConfig

__all__ = [
    "DeepSpeech2Decoder",
    "DeepSpeech2DecoderConfig",
    "DeepSpeech2Encoder",
    "DeepSpeech2EncoderAdapter",
    "DeepSpeech2EncoderAdapterConfig",
    "DeepSpeech2EncoderConfig",
    "LogSpectrogramPreprocessor",
    "LogSpectrogramPreprocessorConfig",
    "MLPAdapter",
    "MLPAdapterConfig",
    "MLPHeadAdapter",
    "MLPHeadAdapterConfig",
    "StreamingMelPreprocessor",
    "StreamingMelPreprocessorConfig",
]

for _name in __all__:
    globals()[_name].__module__ = __name__

if get_registered_adapter(DeepSpeech2Encoder) is None:
    register_adapter(base_class=DeepSpeech2Encoder, adapter_class=DeepSpeech2EncoderAdapter)
