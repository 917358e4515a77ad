"""The CTC head of DeepSpeech2."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from nemo.collections.asr.parts.utils.adapter_utils import LINEAR_ADAPTER_CLASSPATH
from nemo.core.classes.common import typecheck
from nemo.core.classes.exportable import Exportable
from nemo.core.neural_types import AcousticEncodedRepresentation, LogprobsType, NeuralType
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters.layers import MaskedBatchNorm
from nemo_ds2_adapters.modules.adapters import MLPAdapter, plain_config
from nemo_ds2_adapters.modules.enabled import QuickAdapterMixin
from nemo_ds2_adapters.modules.freezing import KeepsModeModule

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
        self.set_accepted_adapter_types([LINEAR_ADAPTER_CLASSPATH, MLPAdapter])

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
        return OrderedDict(logprobs=NeuralType(("B", "T", "D"), LogprobsType()))

    def input_example(self, max_batch: int = 1, max_dim: int = 256) -> tuple[Tensor]:
        """Encoder output `[max_batch, feat_in, max_dim]`, for export."""
        return (self.output.weight.new_ones(max_batch, self._feat_in, max_dim).normal_(),)

    @typecheck()
    def forward(self, encoder_output: Tensor) -> Tensor:
        """`[B, feat_in, T]` -> log probabilities `[B, T, num_classes_with_blank]`, blank last."""
        # Contiguous: otherwise torch multiplies in a way that depends on the layout and on what is frozen.
        x = encoder_output.transpose(1, 2).contiguous()
        # All frames up to the last one with a value; before adapters, which do not keep padding zero.
        is_real = x.ne(0).any(dim=-1, keepdim=True).flip(1).cumsum(1).flip(1) > 0
        if self.is_adapter_available():
            x = self.forward_enabled_adapters(x)
        if isinstance(self.norm, MaskedBatchNorm):
            x = self.norm(x, is_real)
        elif self.norm is not None:
            x = self.norm(x)
        return F.log_softmax(self.output(x) / self.temperature, dim=-1)

    def add_adapter(self, name: str, cfg: DictConfig | Any) -> None:
        """Add an adapter before the output layer; its input size is inferred.

        It gets this decoder's device, precision and train/eval mode.
        """
        plain = plain_config(cfg)
        placement = {"layers": plain.pop("layers")} if "layers" in plain else {}
        super().add_adapter(name, OmegaConf.create({**plain, "in_features": self._feat_in}))
        _, adapter_name = self.resolve_adapter_module_name_(name)
        self.adapter_layer[adapter_name].to(self.output.weight).train(self.training)
        # The encoder's part of an adapter `encoder+decoder:name` is restored from the same entry.
        self.adapter_cfg[adapter_name].update(placement)


@dataclass
class DeepSpeech2DecoderConfig:
    """Arguments of `DeepSpeech2Decoder`, see there. `feat_in: null` is taken from the encoder by NeMo."""

    feat_in: int | None = None
    num_classes: int = -1
    vocabulary: list[str] = field(default_factory=list)
    norm: str | None = None
    bias: bool = True
    _target_: str = "nemo_ds2_adapters.modules.DeepSpeech2Decoder"
