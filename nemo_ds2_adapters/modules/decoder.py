"""The CTC head of DeepSpeech2."""

from collections import OrderedDict
from dataclasses import dataclass, field

import torch.nn.functional as F
from nemo.collections.asr.parts.utils.adapter_utils import LINEAR_ADAPTER_CLASSPATH, update_adapter_cfg_input_dim
from nemo.core.classes.common import typecheck
from nemo.core.classes.exportable import Exportable
from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin
from nemo.core.neural_types import AcousticEncodedRepresentation, LogprobsType, NeuralType
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters.layers import MaskedBatchNorm
from nemo_ds2_adapters.modules.adapters import MLPAdapter
from nemo_ds2_adapters.modules.freezing import KeepsModeModule

NORMS = ("batch", "layer")


class DeepSpeech2Decoder(KeepsModeModule, Exportable, AdapterModuleMixin):
    """[norm ->] Linear -> log softmax, with the interface NeMo expects of a CTC decoder.

    Args:
        feat_in: values per encoder output frame.
        num_classes: output units without the blank; -1 takes the vocabulary's size.
        vocabulary: the output units; the blank comes last and is not among them.
        norm: `batch` (deepspeech.pytorch), `layer` (KoSpeech) or None, before the Linear. Batch norm takes a
            frame that is zero in all values for padding, which is how `DeepSpeech2Encoder` pads.
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
        if vocabulary is None and num_classes < 1:
            raise ValueError(f"num_classes={num_classes} and no vocabulary: expected one of them to be given")
        if vocabulary is not None and num_classes > 0 and len(vocabulary) != num_classes:
            raise ValueError(f"vocabulary has {len(vocabulary)} units, but num_classes={num_classes}")
        if norm not in (None, *NORMS):
            raise ValueError(f"norm={norm!r}: expected none or one of {', '.join(NORMS)}")
        # NeMo hands the vocabulary to OmegaConf.to_container, which a plain list fails.
        self._vocabulary = OmegaConf.create(list(vocabulary)) if vocabulary is not None else None
        self._feat_in = feat_in
        self._num_classes = (num_classes if vocabulary is None else len(vocabulary)) + 1  # and the blank
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
        x = encoder_output.transpose(1, 2)
        is_real = x.ne(0).any(dim=-1, keepdim=True)  # before adapters, which do not keep padding zero
        if self.is_adapter_available():
            x = self.forward_enabled_adapters(x)
        if isinstance(self.norm, MaskedBatchNorm):
            x = self.norm(x, is_real)
        elif self.norm is not None:
            x = self.norm(x)
        return F.log_softmax(self.output(x) / self.temperature, dim=-1)

    def add_adapter(self, name: str, cfg: DictConfig) -> None:
        """Add an adapter before the output layer; its input size is inferred."""
        cfg = update_adapter_cfg_input_dim(self, cfg, module_dim=self._feat_in)
        super().add_adapter(name=name, cfg=cfg)


@dataclass
class DeepSpeech2DecoderConfig:
    """Arguments of `DeepSpeech2Decoder`, see there. `feat_in: null` is taken from the encoder by NeMo."""

    feat_in: int | None = None
    num_classes: int = -1
    vocabulary: list[str] = field(default_factory=list)
    norm: str | None = None
    bias: bool = True
    _target_: str = "nemo_ds2_adapters.modules.DeepSpeech2Decoder"
