"""deepspeech.pytorch: Lightning checkpoints of version 3, packages of versions 1 and 2."""

from typing import Any

from torch import Tensor

from nemo_ds2_adapters.convert.checkpoint import Checkpoint, section, unwrapped
from nemo_ds2_adapters.convert.features import DEEPSPEECH_PYTORCH, spectrogram_features
from nemo_ds2_adapters.convert.labels import read_labels
from nemo_ds2_adapters.convert.original import (
    Options,
    Original,
    check_agreement,
    common_encoder,
    encoder_modules,
    read_sizes,
)
from nemo_ds2_adapters.errors import InputError

CONVOLUTIONS = ["conv.seq_module.0", "conv.seq_module.3"]
RECURRENT = "rnns.{i}.rnn"
OUTPUT = "fc.0.module.1"
LOOKAHEAD = "lookahead.0.conv"


def is_deepspeech_pytorch(weights: dict[str, Tensor]) -> bool:
    """Whether weights have this toolkit's names."""
    return any(key.startswith("conv.seq_module.") for key in weights)


def read_deepspeech_pytorch(checkpoint: Checkpoint, options: Options) -> Original:
    """Find out what the model is. Options go before the file's settings; neither may contradict its weights
    (InputError)."""
    weights = checkpoint.weights
    settings = checkpoint.settings | section(checkpoint.settings, "hyper_parameters")
    sizes = read_sizes(weights, CONVOLUTIONS, RECURRENT, OUTPUT)
    check_agreement("rnn_type", sizes.rnn_type, options.rnn_type)
    check_agreement("bidirectional", sizes.bidirectional, options.bidirectional)
    stated = unwrapped(section(settings, "model_cfg").get("rnn_type", settings.get("rnn_type")))
    if isinstance(stated, str):  # the name of a class in version 3
        check_agreement("rnn_type", sizes.rnn_type, stated.rpartition(".")[2].lower())

    features = section(settings, "spect_cfg", "audio_conf")
    features = {key: features[key] for key in DEEPSPEECH_PYTORCH if key in features} | (options.features or {})
    preprocessor = spectrogram_features(features)
    bins = int(preprocessor["sample_rate"] * preprocessor["window_size"]) // 2 + 1
    check_agreement("input_dim", bins, options.input_dim, "the spectrogram's settings")
    encoder = common_encoder(sizes, bins)
    encoder["activation"] = options.activation or "clipped_relu"
    modules = encoder_modules("conv.seq_module", "rnns", "batch_norm.module", sizes.n_layers)
    modules |= {"fc.0.module.0": "decoder.norm", OUTPUT: "decoder.output"}
    if not sizes.bidirectional:
        modules[LOOKAHEAD] = "encoder.lookahead.0.conv"
        encoder["lookahead_context"] = _lookahead_context(weights)
    return Original(
        sizes=sizes,
        encoder=encoder,
        decoder={"norm": "batch", "bias": sizes.output_bias},
        preprocessor=preprocessor,
        labels=options.labels or _labels(settings),
        default_blank=0,
        modules=modules,
    )


def _lookahead_context(weights: dict[str, Tensor]) -> int:
    name = f"{LOOKAHEAD}.weight"
    if name not in weights:
        raise InputError(
            f"the state dict has no {name}, which forward-only models of version 2 and later have; the look-ahead of "
            "older ones is not known here"
        )
    return int(weights[name].shape[-1])


def _labels(settings: dict[str, Any]) -> list[str]:
    labels = unwrapped(settings.get("labels"))
    if labels is None:
        raise InputError("labels: the file has none, give them as a list or as labels.json")
    return read_labels([unwrapped(label) for label in labels] if isinstance(labels, list | tuple | str) else [])
