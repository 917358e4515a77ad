"""DeepSpeech2 as an encoder of NeMo's CTC models."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from nemo.core.classes.common import typecheck
from nemo.core.classes.exportable import Exportable
from nemo.core.neural_types import AcousticEncodedRepresentation, LengthsType, NeuralType, SpectrogramType
from torch import Tensor, nn

from nemo_ds2_adapters.layers import ConvFrontEnd, Lookahead, RecurrentLayer, build_activation, length_mask
from nemo_ds2_adapters.layers.recurrent import BIDIRECTIONAL_MERGES, RNN_NONLINEARITIES, RNN_TYPES
from nemo_ds2_adapters.modules.mixins import KeepsModeModule
from nemo_ds2_adapters.modules.streams import StreamedEncoder


class DeepSpeech2Encoder(KeepsModeModule, StreamedEncoder, Exportable):
    """Convolutions, recurrent layers, optional look-ahead (Amodei et al. 2015, arXiv 1512.02595, section 3).

    The encoder has `n_layers + 1` *points*: point 0 is the convolutions' output, point `i` the output of
    recurrent layer `i - 1`; the last point comes after the look-ahead. `forward` is `forward_prefix` up to a
    point and `forward_from` that point on. Adapters sit at points.

    Args:
        feat_in: frequency bins per input frame.
        n_layers: recurrent layers, at least 1.
        d_model: hidden size per direction.
        rnn_type: `gru`, `lstm` or `rnn`.
        rnn_nonlinearity: `tanh` (default) or `relu`; for `rnn_type="rnn"` only.
        bidirectional: run each recurrent layer in both directions.
        bidirectional_merge: `sum` (paper) or `concat` (KoSpeech), default `sum`; for bidirectional models only.
        lookahead_context: frames the look-ahead convolution sees, the present one included, 0 for none; for
            forward-only models. It is followed by `activation`.
        conv_channels: output channels of the 1 to 3 convolutions.
        conv_bias: bias in the convolutions.
        conv_time_stride: input frames per frame of the recurrent layers, of the first convolution.
        activation: of convolutions and look-ahead, a name of `nemo_ds2_adapters.layers.ACTIVATIONS`.
        batch_norm: sequence-wise batch norm before each recurrent layer.
        first_layer_norm: also before the first one.
        norm_relu: ReLU after each of those norms (KoSpeech).
        dropout: probability, after each recurrent layer.

    Raises:
        ValueError: an option is out of range, or contradicts another one; the message names both values.
    """

    resume_point: int | None = None  # where the input of `forward` was taken, None if it is features

    def __init__(
        self,
        feat_in: int,
        n_layers: int = 5,
        d_model: int = 512,
        rnn_type: str = "gru",
        rnn_nonlinearity: str | None = None,
        bidirectional: bool = True,
        bidirectional_merge: str | None = None,
        lookahead_context: int = 0,
        conv_channels: Sequence[int] = (32, 32),
        conv_bias: bool = True,
        conv_time_stride: int = 2,
        activation: str = "clipped_relu",
        batch_norm: bool = True,
        first_layer_norm: bool = False,
        norm_relu: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_sizes(n_layers, d_model, dropout)
        _check_recurrence(rnn_type, rnn_nonlinearity, bidirectional, bidirectional_merge, lookahead_context)
        if not batch_norm and (first_layer_norm or norm_relu):
            raise ValueError(f"first_layer_norm={first_layer_norm}, norm_relu={norm_relu} need batch_norm=true")

        self.conv = ConvFrontEnd(feat_in, conv_channels, activation, conv_bias, conv_time_stride)
        self.layers = nn.ModuleList()
        width = self.conv.feat_out
        for i in range(n_layers):
            layer = RecurrentLayer(
                width,
                d_model,
                rnn_type,
                nonlinearity=rnn_nonlinearity or "tanh",
                bidirectional=bidirectional,
                merge=bidirectional_merge or "sum",
                batch_norm=batch_norm and (i > 0 or first_layer_norm),
                norm_relu=norm_relu,
                dropout=dropout,
            )
            self.layers.append(layer)
            width = layer.output_size
        self.lookahead = None
        if lookahead_context:
            self.lookahead = nn.Sequential(Lookahead(width, lookahead_context), build_activation(activation))
        self._feat_in = feat_in
        self._feat_out = width

    @property
    def n_layers(self) -> int:
        """Number of recurrent layers, and of the last point."""
        return len(self.layers)

    @property
    def subsampling_factor(self) -> int:
        """Input frames per output frame."""
        return self.conv.time_stride

    def point_width(self, point: int) -> int:
        """Values per frame at a point."""
        return self.conv.feat_out if point == 0 else self.layers[point - 1].output_size  # type: ignore[return-value]

    @property
    def input_types(self) -> OrderedDict[str, NeuralType]:
        return OrderedDict(
            audio_signal=NeuralType(("B", "D", "T"), SpectrogramType()),
            length=NeuralType(tuple("B"), LengthsType()),
        )

    @property
    def output_types(self) -> OrderedDict[str, NeuralType]:
        return OrderedDict(
            outputs=NeuralType(("B", "D", "T"), AcousticEncodedRepresentation()),
            encoded_lengths=NeuralType(tuple("B"), LengthsType()),
        )

    def input_example(self, max_batch: int = 2, max_dim: int = 256) -> tuple[Tensor, Tensor]:
        """Features `[max_batch, feat_in, max_dim]` and unequal lengths, for export."""
        device = next(self.parameters()).device
        lengths = torch.linspace(max_dim // 2, max_dim, max_batch, device=device).round().long()
        return torch.randn(max_batch, self._feat_in, max_dim, device=device), lengths

    @typecheck()
    def forward(self, audio_signal: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Args:
            audio_signal: `[B, feat_in, T]` features.
            length: `[B]`, real frames of each utterance, at least 1.

        Returns:
            `[B, D', T']` and `[B]` real output frames; zero beyond them.

        Raises:
            ValueError: an utterance has no frames.
        """
        if self.resume_point is None:
            x, lengths = self.forward_prefix(audio_signal, length, point=0)
        else:
            x, lengths = audio_signal.transpose(1, 2), length
        x = self.forward_from(x, lengths, point=self.resume_point or 0)
        return x.transpose(1, 2), lengths

    _forward = forward  # NeMo's export puts forward_for_export in its place

    def forward_for_export(self, audio_signal: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` in an exported graph. The output carries its lengths along, for the decoder to put them out."""
        outputs, lengths = self._forward(audio_signal=audio_signal, length=length)
        outputs.encoded_lengths = lengths
        return outputs, lengths

    @contextmanager
    def resuming(self, point: int) -> Iterator[None]:
        """In this block, `forward` takes prefix activations of a point, `[B, D, T']` and their lengths, not features.

        A training loop that is not ours hands them to the model as if they were features. Raises ValueError: there is
        no such point, or, in `forward`, the activations are not as wide as it.
        """
        if not 0 <= point <= self.n_layers:
            raise ValueError(f"point {point}: the encoder has points 0 to {self.n_layers}")
        before, self.resume_point = self.resume_point, point
        try:
            yield
        finally:
            self.resume_point = before

    def forward_prefix(self, audio_signal: Tensor, length: Tensor, point: int) -> tuple[Tensor, Tensor]:
        """Run up to a point, adapters at that point not included.

        Args:
            audio_signal: `[B, feat_in, T]` features.
            length: `[B]`, real frames of each utterance.
            point: 0 to `n_layers`.

        Returns:
            prefix activations `[B, T', point_width(point)]` and `[B]` real frames of them.
        """
        cpu_lengths = self._checked_cpu_lengths(length)
        x, lengths = self.conv(audio_signal, length)
        cpu_lengths = self.conv.output_lengths(cpu_lengths)
        return self._run(x, lengths, cpu_lengths, 0, point), lengths

    def forward_from(self, x: Tensor, lengths: Tensor, point: int) -> Tensor:
        """Go on from a point, adapters at that point included.

        Args:
            x: prefix activations `[B, T', point_width(point)]`, zero beyond the real frames.
            lengths: `[B]`, their real frames.
            point: where they were taken.

        Returns:
            encoder output `[B, T', D']`, zero beyond the real frames.
        """
        if x.shape[-1] != self.point_width(point):
            raise ValueError(f"activations of point {point} have {self.point_width(point)} values, got {x.shape[-1]}")
        x = self._run(x, lengths, self._checked_cpu_lengths(lengths), point, self.n_layers)
        return self._adapt(x, lengths, self.n_layers)

    def _run(self, x: Tensor, lengths: Tensor, cpu_lengths: Tensor, start: int, stop: int) -> Tensor:
        """From point `start` (its adapters included) to point `stop` (its adapters not included)."""
        mask = length_mask(lengths, x.shape[1]).unsqueeze(-1)
        for point in range(start, stop):
            x = self.layers[point](self._adapt(x, lengths, point), lengths, mask, cpu_lengths)
            if point + 1 == self.n_layers and self.lookahead is not None:
                x = self.lookahead(x)
        return x

    def _adapt(self, x: Tensor, lengths: Tensor, point: int) -> Tensor:
        """What adapters make of the activations `[B, T', D]` at a point; the plain encoder has none."""
        return x

    @staticmethod
    def _checked_cpu_lengths(lengths: Tensor) -> Tensor:
        cpu_lengths = lengths.to("cpu", torch.int64)  # the one synchronisation, packing needs it
        if not torch.jit.is_tracing() and not torch.compiler.is_compiling() and int(cpu_lengths.min()) < 1:
            rows = (cpu_lengths < 1).nonzero().flatten().tolist()
            raise ValueError(f"utterances {rows} of the batch have length 0, expected at least 1 frame in each")
        return cpu_lengths


def _check_sizes(n_layers: int, d_model: int, dropout: float) -> None:
    if n_layers < 1 or d_model < 1:
        raise ValueError(f"n_layers={n_layers}, d_model={d_model}: expected at least 1 of each")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout={dropout}: expected a probability of at least 0 and below 1")


def _check_recurrence(
    rnn_type: str, nonlinearity: str | None, bidirectional: bool, merge: str | None, lookahead_context: int
) -> None:
    if rnn_type not in RNN_TYPES:
        raise ValueError(f"rnn_type={rnn_type!r} is unknown, expected one of {', '.join(RNN_TYPES)}")
    if nonlinearity is not None and rnn_type != "rnn":
        raise ValueError(f"rnn_nonlinearity={nonlinearity!r} needs rnn_type='rnn', got rnn_type={rnn_type!r}")
    if nonlinearity not in (None, *RNN_NONLINEARITIES):
        raise ValueError(f"rnn_nonlinearity={nonlinearity!r}: expected one of {', '.join(RNN_NONLINEARITIES)}")
    if merge not in (None, *BIDIRECTIONAL_MERGES):
        raise ValueError(f"bidirectional_merge={merge!r}: expected one of {', '.join(BIDIRECTIONAL_MERGES)}")
    if merge is not None and not bidirectional:
        raise ValueError(f"bidirectional_merge={merge!r} needs bidirectional=true")
    if lookahead_context < 0:
        raise ValueError(f"lookahead_context={lookahead_context}: expected 0 (none) or a number of frames")
    if lookahead_context and bidirectional:
        raise ValueError(f"lookahead_context={lookahead_context} needs bidirectional=false")


@dataclass
class DeepSpeech2EncoderConfig:
    """Arguments of `DeepSpeech2Encoder`, see there."""

    feat_in: int = 80
    n_layers: int = 5
    d_model: int = 512
    rnn_type: str = "gru"
    rnn_nonlinearity: str | None = None
    bidirectional: bool = True
    bidirectional_merge: str | None = None
    lookahead_context: int = 0
    conv_channels: list[int] = field(default_factory=lambda: [32, 32])
    conv_bias: bool = True
    conv_time_stride: int = 2
    activation: str = "clipped_relu"
    batch_norm: bool = True
    first_layer_norm: bool = False
    norm_relu: bool = False
    dropout: float = 0.0
    _target_: str = "nemo_ds2_adapters.modules.DeepSpeech2Encoder"
