"""A DeepSpeech2 model from Python, by the original's arguments."""

from collections.abc import Sequence

from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import OmegaConf

from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.configs import shipped_config
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules import DeepSpeech2DecoderConfig, DeepSpeech2EncoderAdapterConfig, MLPHeadAdapterConfig

ADAPTER_NAME = "default"  # the original's name for an adapter that nobody has named
CONFIG = "deepspeech2/deepspeech2"  # for preprocessor, characters, decoding
ACTIVATIONS = {"hardtanh": "clipped_relu"}  # the original's name for it


def build_deepspeech2(
    input_dim: int = 80,
    num_classes: int = 29,
    num_rnn_layers: int = 5,
    rnn_hidden_dim: int = 512,
    use_adapter: bool = False,
    adapter_hidden_dims: Sequence[int] = (512, 256),
    *,
    rnn_type: str = "gru",
    dropout_p: float = 0.1,
    bidirectional: bool = True,
    activation: str = "hardtanh",
    vocabulary: Sequence[str] | None = None,
) -> EncDecCTCModel:
    """An untrained DeepSpeech2 built as the original builds it (KoSpeech's variant), with NeMo's preprocessor.

    Args:
        input_dim: mel bands per frame.
        num_classes: output units, the blank included, which is the last one.
        num_rnn_layers: recurrent layers.
        rnn_hidden_dim: hidden size per direction; both directions are concatenated.
        use_adapter: add the head adapter `default`, which takes the place of the output layer.
        adapter_hidden_dims: its 1 to 3 hidden sizes.
        rnn_type: `gru`, `lstm` or `rnn`.
        dropout_p: probability, after each recurrent layer and in the adapter.
        bidirectional: run the recurrent layers in both directions.
        activation: of the convolutions: `hardtanh` (clipped ReLU) or another one of `layers.ACTIVATIONS`.
        vocabulary: the output units without the blank; None takes space, a to z and apostrophe.

    Returns:
        the model in training mode, as NeMo builds models.

    Raises:
        InputError: `num_classes` does not fit the vocabulary, or a size or name is out of range.
    """
    cfg = shipped_config(CONFIG)
    units = list(cfg.labels if vocabulary is None else vocabulary)
    if len(units) + 1 != num_classes:
        raise InputError(
            f"num_classes={num_classes}: the vocabulary has {len(units)} units and the blank; "
            f"give vocabulary= with {num_classes - 1} units"
        )
    encoder = DeepSpeech2EncoderAdapterConfig(
        feat_in=input_dim,
        n_layers=num_rnn_layers,
        d_model=rnn_hidden_dim,
        rnn_type=rnn_type,
        bidirectional=bidirectional,
        bidirectional_merge="concat" if bidirectional else None,
        conv_bias=False,
        activation=ACTIVATIONS.get(activation, activation),
        first_layer_norm=True,
        norm_relu=True,
        dropout=dropout_p,
    )
    model_cfg = OmegaConf.create(
        {
            "sample_rate": cfg.sample_rate,
            "labels": units,
            "preprocessor": {**cfg.model.preprocessor, "features": input_dim},
            "encoder": OmegaConf.structured(encoder),
            "decoder": OmegaConf.structured(DeepSpeech2DecoderConfig(vocabulary=units, norm="layer", bias=False)),
            "decoding": cfg.model.decoding,
        }
    )
    try:
        model = EncDecCTCModel(cfg=model_cfg)
    except Exception as error:  # NeMo and Hydra wrap what the encoder refuses
        raise InputError(f"build_deepspeech2: {error.__cause__ or error}") from error
    if use_adapter:
        head = MLPHeadAdapterConfig(hidden_dims=list(adapter_hidden_dims), dropout=dropout_p, mode="replace")
        add_adapter(model, f"decoder:{ADAPTER_NAME}", head)
    return model
