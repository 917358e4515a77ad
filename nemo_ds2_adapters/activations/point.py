"""Where the frozen prefix of a model ends, and whether it computes the same in every epoch."""

from nemo.collections.asr.models import ASRModel
from torch import nn

from nemo_ds2_adapters.layers import RecurrentLayer
from nemo_ds2_adapters.modules import DeepSpeech2EncoderAdapter

POINTS = "adapter_points."  # of the encoder's parameters, those of adapters


def resume_point(model: ASRModel) -> int:
    """The first point of the encoder with something trainable or enabled: up to there, an utterance is a constant.

    For adapters in the decoder this is the encoder's last point.
    """
    encoder = model.encoder
    points = [encoder.n_layers]
    for point, block in encoder.adapter_points.items() if hasattr(encoder, "adapter_points") else ():
        if block.get_enabled_adapters() or any(p.requires_grad for p in block.parameters()):
            points.append(int(point))
    return min(points)


def why_not_exact(model: ASRModel) -> str | None:
    """What would make stored prefix activations differ from those computed anew; None if nothing does.

    Ask it once everything is frozen that is to be frozen.
    """
    encoder = model.encoder
    if not isinstance(encoder, DeepSpeech2EncoderAdapter):
        return f"{type(encoder).__name__} cannot resume from activations"
    if model.spec_augmentation is not None:
        return "SpecAugment is on"
    trainable = [name for name, p in encoder.named_parameters() if p.requires_grad and not name.startswith(POINTS)]
    if trainable:
        return f"{len(trainable)} tensors of the encoder itself are trained"
    if any(p.requires_grad for p in model.preprocessor.parameters()):
        return "the preprocessor is trained"
    if model.preprocessor.training and _dither(model) > 0:
        return "the preprocessor adds dither"
    if encoder.training and any(_varies(module) for module in encoder.modules()):
        return "the frozen part is in training mode"
    return None


def _varies(module: nn.Module) -> bool:
    """Whether a frozen module computes anything in training mode that it does not in eval mode."""
    return isinstance(module, RecurrentLayer) and module.dropout_when_frozen and module.dropout > 0


def _dither(model: ASRModel) -> float:
    return float(getattr(getattr(model.preprocessor, "featurizer", None), "dither", 0.0) or 0.0)
