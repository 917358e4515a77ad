"""KoSpeech: state dicts, alone or with settings beside them."""

from torch import Tensor

from nemo_ds2_adapters.convert.checkpoint import Checkpoint, section
from nemo_ds2_adapters.convert.features import kospeech_features, mel_features
from nemo_ds2_adapters.convert.labels import read_labels
from nemo_ds2_adapters.convert.original import (
    Options,
    Original,
    Sizes,
    check_agreement,
    common_encoder,
    conv_output_width,
    encoder_modules,
    read_sizes,
)
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules import LogSpectrogramPreprocessor

CONVOLUTIONS = ["conv.conv.sequential.0", "conv.conv.sequential.3"]
RECURRENT = "rnn_layers.{i}.rnn"
OUTPUT = "fc.1.linear"
USUAL_INPUTS = (80, 40, 161)  # values per frame: KoSpeech's mel bands and filter banks, MFCC, spectrogram
NO_FEATURES = (
    "the features that the model was trained on are not known: the .nemo computes NeMo's mel bands instead, so train "
    "the model on before you transcribe audio with it, or feed it the original's features as processed_signal"
)


def is_kospeech(weights: dict[str, Tensor]) -> bool:
    """Whether weights have this toolkit's names."""
    return any(key.startswith("conv.conv.sequential.") for key in weights)


def read_kospeech(checkpoint: Checkpoint, options: Options) -> Original:
    """Find out what the model is. Options go before the file's settings; neither may contradict its weights
    (InputError)."""
    settings = checkpoint.settings | section(checkpoint.settings, "hyper_parameters", "config")
    sizes = read_sizes(checkpoint.weights, CONVOLUTIONS, RECURRENT, OUTPUT)
    for name in ("rnn_type", "bidirectional"):
        check_agreement(name, getattr(sizes, name), settings.get(name), "the weights, unlike the file's settings,")
        check_agreement(name, getattr(sizes, name), getattr(options, name))
    input_dim = options.input_dim or settings.get("input_dim") or _usual_input(sizes)
    notes: tuple[str, ...] = ()
    if options.features is not None:
        preprocessor = kospeech_features(options.features)
        bins = LogSpectrogramPreprocessor(preprocessor["sample_rate"], preprocessor["window_size"]).feat_out
        check_agreement("input_dim", bins, input_dim, "the features")
        input_dim = bins
    elif type(input_dim) is int:
        preprocessor, notes = mel_features(input_dim), (NO_FEATURES,)
    else:
        raise InputError("input_dim: neither weights nor settings say how many values an input frame has, give it")
    activation = str(options.activation or settings.get("activation", "hardtanh"))
    activation = "clipped_relu" if activation == "hardtanh" else activation
    encoder = common_encoder(sizes, input_dim)
    encoder |= {"activation": activation, "first_layer_norm": True, "norm_relu": True}
    if sizes.bidirectional:
        encoder["bidirectional_merge"] = "concat"
    labels = options.labels or settings.get("labels")
    if labels is None:
        raise InputError("labels: the file has none, give them as a list or as KoSpeech's vocabulary .csv")
    modules = encoder_modules("conv.conv.sequential", "rnn_layers", "batch_norm", sizes.n_layers)
    return Original(
        sizes=sizes,
        encoder=encoder,
        decoder={"norm": "layer", "bias": sizes.output_bias},
        preprocessor=preprocessor,
        labels=read_labels(labels),
        default_blank=sizes.num_classes - 1,
        modules=modules | {"fc.0": "decoder.norm", OUTPUT: "decoder.output"},
        notes=notes,
    )


def _usual_input(sizes: Sizes) -> int | None:
    """Values per input frame that KoSpeech has by default and the weights allow, which fit four numbers in a row."""
    fitting = [bins for bins in USUAL_INPUTS if conv_output_width(bins, sizes) == sizes.rnn_input]
    return fitting[0] if fitting else None
