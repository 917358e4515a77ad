"""The CTC head of DeepSpeech2."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from nemo.collections.asr.parts.utils.adapter_utils import LINEAR_ADAPTER_CLASSPATH
from nemo.core.classes.common import typecheck
from nemo.core.classes.exportable import Exportable
from nemo.core.neural_types import AcousticEncodedRepresentation, LengthsType, LogprobsType, NeuralType
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.layers import MaskedBatchNorm
from nemo_ds2_adapters.modules.adapters import HEAD_PLACE, MLPAdapter, MLPHeadAdapter, is_head, plain_config
from nemo_ds2_adapters.modules.mixins import KeepsModeModule, QuickAdapterMixin
from nemo_ds2_adapters.modules.routing import DECODER_FEATURES, DECODER_LOGITS, active_routing

NORMS = ("batch", "layer")


class DeepSpeech2Decoder(KeepsModeModule, Exportable, QuickAdapterMixin):
    """[norm ->] Linear -> log softmax, with the interface NeMo expects of a CTC decoder.

    Args:
        feat_in: values per encoder output frame.
        num_classes: output units without the blank; -1 takes the vocabulary's size.
        vocabulary: the output units; the blank comes last and is not among them.
        norm: `batch` (deepspeech.pytorch), `layer` (KoSpeech) or None, before the Linear. Batch norm takes the
            last frames that are zero in all values for padding, which is how `DeepSpeech2Encoder` pads.
        bias: whether the Linear has one.

    Raises:
        ValueError: `norm` is unknown, or vocabulary and num_classes are both missing or do not agree.
    """

    def __init__(
        self,
        feat_in: int,
        num_classes: int = -1,
        vocabulary: list[str] | ListConfig | None = None,
        norm: str | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if not vocabulary and num_classes < 1:
            raise ValueError(f"num_classes={num_classes} and no vocabulary: expected one of them to be given")
        if vocabulary and num_classes > 0 and len(vocabulary) != num_classes:
            raise ValueError(f"vocabulary has {len(vocabulary)} units, but num_classes={num_classes}")
        if norm not in (None, *NORMS):
            raise ValueError(f"norm={norm!r}: expected none or one of {', '.join(NORMS)}")
        # NeMo hands the vocabulary to OmegaConf.to_container, which a plain list fails.
        self._vocabulary = OmegaConf.create(list(vocabulary)) if vocabulary else None
        self._feat_in = feat_in
        self._num_classes = (len(vocabulary) if vocabulary else num_classes) + 1  # and the blank
        self.norm: nn.Module | None = None
        if norm == "batch":
            self.norm = MaskedBatchNorm(feat_in, channel_dim=-1)
        elif norm == "layer":
            self.norm = nn.LayerNorm(feat_in)
        self.output = nn.Linear(feat_in, self._num_classes, bias=bias)
        self.temperature = 1.0  # NeMo's change_decoding_strategy() sets it
        self.set_accepted_adapter_types([LINEAR_ADAPTER_CLASSPATH, MLPAdapter, MLPHeadAdapter])

    @property
    def vocabulary(self) -> ListConfig | None:
        """Output units without the blank."""
        return self._vocabulary

    @property
    def num_classes_with_blank(self) -> int:
        """Output units and the blank."""
        return self._num_classes

    @property
    def input_types(self) -> OrderedDict[str, NeuralType]:
        return OrderedDict(encoder_output=NeuralType(("B", "D", "T"), AcousticEncodedRepresentation()))

    @property
    def output_types(self) -> OrderedDict[str, NeuralType]:
        return OrderedDict(
            logprobs=NeuralType(("B", "T", "D"), LogprobsType()),
            encoded_lengths=NeuralType(tuple("B"), LengthsType(), optional=True),  # in an exported graph
        )

    def input_example(self, max_batch: int = 1, max_dim: int = 256) -> tuple[Tensor]:
        """Encoder output `[max_batch, feat_in, max_dim]`, for export."""
        return (self.output.weight.new_ones(max_batch, self._feat_in, max_dim).normal_(),)

    @typecheck()
    def forward(self, encoder_output: Tensor) -> Tensor:
        """`[B, feat_in, T]` -> log probabilities `[B, T, num_classes_with_blank]`, blank last.

        Raises InputError: more than one head adapter is enabled.
        """
        routing = active_routing(self, len(encoder_output))
        head = self.enabled_head()
        frames = self._frames(encoder_output)
        if routing is not None:
            return self._log_probs(routing.apply(DECODER_LOGITS, frames, self._base_logits(frames, encoder_output)))
        if head is None:
            return self._log_probs(self._base_logits(frames, encoder_output))
        if head.mode == "replace":
            return self._log_probs(head(frames))
        return self._log_probs(self._base_logits(frames, encoder_output) + head(frames))

    _forward = forward  # NeMo's export puts forward_for_export in its place

    def forward_for_export(self, encoder_output: Tensor) -> tuple[tuple[Tensor, Tensor]]:
        """`forward` in an exported graph, which also gives the real frames, `[B]`: NeMo leaves them out."""
        log_probs = self._forward(encoder_output=encoder_output)
        lengths = getattr(encoder_output, "encoded_lengths", None)
        if lengths is None:  # of an encoder that is not ours
            lengths = _real_frames(encoder_output).sum((1, 2))
        return ((log_probs, lengths),)  # NeMo takes the first output

    def forward_both(self, encoder_output: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, feat_in, T]` -> log probabilities without and with the enabled head adapter, both as `forward` gives.

        Raises InputError: not exactly one head adapter is enabled.
        """
        head = self.enabled_head()
        if head is None:
            raise InputError("there is no personal output: enable a head adapter (MLPHeadAdapter) first")
        frames = self._frames(encoder_output)
        base, own = self._base_logits(frames, encoder_output), head(frames)
        return self._log_probs(base), self._log_probs(own if head.mode == "replace" else base + own)

    def enabled_head(self) -> MLPHeadAdapter | None:
        """The head adapter that runs; None if none is enabled. Raises InputError: several are enabled."""
        enabled = self.get_enabled_adapters()
        heads = [name for name in enabled if isinstance(self.adapter_layer[name], MLPHeadAdapter)]
        if len(heads) > 1:
            raise InputError(f"head adapters {', '.join(heads)} are enabled, but only one can run: disable the others")
        return self.adapter_layer[heads[0]] if heads else None

    def _frames(self, encoder_output: Tensor) -> Tensor:
        """What the output layer and a head adapter work on, `[B, T, feat_in]`."""
        # Contiguous: otherwise torch multiplies in a way that depends on the layout and on what is frozen.
        x = encoder_output.transpose(1, 2).contiguous()
        routing = active_routing(self, len(x))
        if routing is not None:
            x = routing.apply(DECODER_FEATURES, x, x)
        elif self.is_adapter_available():
            x = self.forward_enabled_adapters(x)
        return x

    def forward_single_enabled_adapter_(
        self, input: Tensor, adapter_module: nn.Module, *, adapter_name: str, adapter_strategy: Any
    ) -> Tensor:
        """One adapter of NeMo's chain of feature adapters, which a head adapter is not part of."""
        if isinstance(adapter_module, MLPHeadAdapter):
            return input
        return super().forward_single_enabled_adapter_(
            input, adapter_module, adapter_name=adapter_name, adapter_strategy=adapter_strategy
        )

    def _base_logits(self, frames: Tensor, encoder_output: Tensor) -> Tensor:
        if isinstance(self.norm, MaskedBatchNorm):
            frames = self.norm(frames, _real_frames(encoder_output))
        elif self.norm is not None:
            frames = self.norm(frames)
        return self.output(frames)

    def _log_probs(self, logits: Tensor) -> Tensor:
        return F.log_softmax(logits / self.temperature, dim=-1)

    def add_adapter(self, name: str, cfg: DictConfig | Any) -> None:
        """Add an adapter before the output layer, or a head adapter beside it; its sizes are inferred.

        It gets this decoder's device, precision and train/eval mode. Raises ValueError: the type is not accepted, or a
        head adapter has other sizes or is meant for the encoder too.
        """
        plain = plain_config(cfg)
        module_name, adapter_name = self.resolve_adapter_module_name_(name)
        placement = {}
        if is_head(plain):
            if "+" in module_name:
                raise ValueError(f"{name!r}: {HEAD_PLACE}")
            plain |= self._head_sizes(plain)
        else:
            # The encoder's part of an adapter `encoder+decoder:name` is restored from the same entry.
            placement = {"layers": plain.pop("layers")} if "layers" in plain else {}
            plain["in_features"] = self._feat_in
        super().add_adapter(name, OmegaConf.create(plain))
        self.adapter_layer[adapter_name].to(self.output.weight).train(self.training)
        self.adapter_cfg[adapter_name].update(placement)

    def _head_sizes(self, cfg: dict[str, Any]) -> dict[str, int]:
        sizes = {"in_features": self._feat_in, "num_classes_with_blank": self._num_classes}
        for key, size in sizes.items():
            if cfg.get(key) not in (None, "???", size):
                raise ValueError(f"{key}={cfg[key]} does not fit this decoder, which has {size}: it may be left out")
        return sizes

    def to_config_dict(self) -> DictConfig:
        """This decoder's config, for building another one in its place, as NeMo's `change_vocabulary` does.

        Raises InputError: the decoder has adapters, which the other one would not have.
        """
        if self.is_adapter_available():
            raise InputError(
                f"the decoder has adapters that depend on its vocabulary, {', '.join(self.adapter_layer)}: "
                "delete them first (delete_adapter), or take the base without them"
            )
        return super().to_config_dict()


def _real_frames(encoder_output: Tensor) -> Tensor:
    """`[B, feat_in, T]` -> `[B, T, 1]`: all frames up to the last one with a value; an encoder's padding has none."""
    has_value = encoder_output.ne(0).any(dim=1).unsqueeze(-1)
    return has_value.long().flip(1).cumsum(1).flip(1) > 0


@dataclass
class DeepSpeech2DecoderConfig:
    """Arguments of `DeepSpeech2Decoder`, see there. `feat_in: null` is taken from the encoder by NeMo."""

    feat_in: int | None = None
    num_classes: int = -1
    vocabulary: list[str] = field(default_factory=list)
    norm: str | None = None
    bias: bool = True
    _target_: str = "nemo_ds2_adapters.modules.DeepSpeech2Decoder"
