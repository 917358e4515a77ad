"""The forward-only encoder on streams: state in, state out."""

from collections.abc import Callable

from torch import Tensor, nn

from nemo_ds2_adapters.layers import ConvFrontEnd, length_mask
from nemo_ds2_adapters.layers.state import EncoderState


class StreamedEncoder:
    """What `DeepSpeech2Encoder` can do with streams if it is forward-only."""

    conv: ConvFrontEnd
    layers: nn.ModuleList
    lookahead: nn.Sequential | None
    training: bool
    _adapt: Callable[[Tensor, Tensor, int], Tensor]

    @property
    def is_bidirectional(self) -> bool:
        """Whether it needs the end of an utterance before it says anything."""
        return self.layers[0].rnn.bidirectional  # type: ignore[union-attr,return-value]

    def start(self, streams: int) -> Tensor:
        """The state of so many streams before their first frame, `[streams, N]`, zeros.

        Streams join and leave a batch as rows of a tensor do: `torch.cat([state, encoder.start(2)])`, `state[rows]`.

        Raises:
            ValueError: the encoder is bidirectional.
        """
        return self._start(streams).rows()

    def step(
        self, features: Tensor, lengths: Tensor, state: Tensor, is_last: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode the next chunk of a batch of streams: together, in any chunks, what `forward` gives for the whole.

        Args:
            features: `[B, feat_in, T]`, new frames.
            lengths: `[B]`, real ones of each stream, 0 for none.
            state: `[B, N]`, what `start` or the last step gave; it stays as it is.
            is_last: bool `[B]`, streams that end with these frames; None: none does.

        Returns:
            `[B, D', T']`, the output frames that are complete by now, zero beyond `[B]` real ones, and the new state.

        Raises:
            ValueError: the encoder is in training mode.
        """
        if self.training:
            raise ValueError("streams need the encoder in eval mode")
        last = is_last if is_last is not None and bool(is_last.any()) else None
        before = self._start(0).of_rows(state)
        x, lengths, convolutions = self.conv.step(features, lengths, before.convolutions, last)
        recurrent = []
        for point, (layer, hidden) in enumerate(zip(self.layers, before.recurrent, strict=True)):
            mask = length_mask(lengths, x.shape[1]).unsqueeze(-1)
            x, hidden = layer.step(self._adapt(x, lengths, point), lengths, mask, hidden)  # type: ignore[operator]
            recurrent.append(hidden)
        lookahead = before.lookahead
        if self.lookahead is not None and lookahead is not None:
            convolution, activation = self.lookahead
            x, lengths, lookahead = convolution.step(x, lengths, lookahead, last)  # type: ignore[operator]
            x = activation(x).masked_fill(~length_mask(lengths, x.shape[1]).unsqueeze(-1), 0.0)
        x = self._adapt(x, lengths, len(self.layers))
        return x.transpose(1, 2), lengths, EncoderState(tuple(convolutions), tuple(recurrent), lookahead).rows()

    def _start(self, streams: int) -> EncoderState:
        if self.is_bidirectional:
            raise ValueError("a bidirectional encoder needs the whole utterance: only forward-only models can stream")
        recurrent = tuple(layer.start(streams) for layer in self.layers)  # type: ignore[operator]
        lookahead = None if self.lookahead is None else self.lookahead[0].start(streams)  # type: ignore[operator]
        return EncoderState(tuple(self.conv.start(streams)), recurrent, lookahead)
