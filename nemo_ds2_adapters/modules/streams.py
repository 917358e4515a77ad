"""The forward-only encoder on streams: state in, state out; by itself, and as NeMo's streaming asks for it."""

from collections.abc import Callable

import torch
from nemo.collections.asr.models.configs import CacheAwareStreamingConfig
from nemo.collections.asr.parts.mixins.streaming import StreamingEncoder
from torch import Tensor, nn

from nemo_ds2_adapters.layers import ConvFrontEnd, length_mask
from nemo_ds2_adapters.layers.state import EncoderState

CHUNK_SIZE = 4  # output frames: 80 ms

Caches = tuple[Tensor, Tensor, Tensor]  # last channel, last time, length of the last channel


class StreamedEncoder(StreamingEncoder):
    """What `DeepSpeech2Encoder` can do with streams if it is forward-only."""

    streaming_cfg: CacheAwareStreamingConfig | None = None  # NeMo has it made when it first streams

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
        Raises ValueError: the encoder is bidirectional.
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

    def setup_streaming_params(
        self, chunk_size: int = CHUNK_SIZE, shift_size: int | None = None, left_chunks: int | None = None
    ) -> None:
        """Say in which chunks NeMo's streaming hands over features. Any do.

        Args:
            chunk_size: output frames per chunk.
            shift_size: from chunk to chunk; None, or the same.
            left_chunks: means nothing here, and NeMo's script gives it: the state holds all that was heard.

        Raises:
            ValueError: the encoder is bidirectional, or the chunks are to overlap.
        """
        self._start(0)
        if chunk_size < 1 or shift_size not in (None, chunk_size):
            raise ValueError(f"chunk_size={chunk_size}, shift_size={shift_size}: expected at least 1, and the same")
        frames = chunk_size * self.conv.time_stride
        self.streaming_cfg = CacheAwareStreamingConfig(
            chunk_size=frames, shift_size=frames, valid_out_len=chunk_size, last_channel_num=1, last_time_num=1
        )

    def get_initial_cache_state(
        self,
        batch_size: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        max_dim: int = 0,
    ) -> Caches:
        """NeMo's caches of so many streams before their first frame, zeros: the first, `[1, B, 1, N]`, is the state.

        Raises ValueError: the encoder is bidirectional; or `max_dim`, with which NeMo fills caches at random for
        export.
        """
        if max_dim:
            raise ValueError(f"max_dim={max_dim}: caches at random are none of an encoder with recurrent state")
        state = self.start(batch_size).to(device=device, dtype=dtype)
        return (
            state[None, :, None],
            state.new_zeros(1, batch_size, 1, 1),
            torch.zeros(batch_size, dtype=torch.int64, device=state.device),
        )

    def cache_aware_stream_step(
        self,
        processed_signal: Tensor,
        processed_signal_length: Tensor | None = None,
        cache_last_channel: Tensor | None = None,
        cache_last_time: Tensor | None = None,
        cache_last_channel_len: Tensor | None = None,
        keep_all_outputs: bool = True,
        drop_extra_pre_encoded: int | None = None,
        bypass_pre_encode: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """`step` as NeMo's streaming calls it; without caches, `forward` of whole utterances.

        Args:
            processed_signal: `[B, feat_in, T]`.
            processed_signal_length: `[B]`; None: all frames are real.
            cache_last_channel: `[1, B, 1, N]`, the state.
            cache_last_time: passed on.
            cache_last_channel_len: passed on.
            keep_all_outputs: these are the last frames of all streams.
            drop_extra_pre_encoded: None or 0: chunks do not overlap.
            bypass_pre_encode: False: there are convolutions.

        Returns:
            `[B, D', T']`, `[B]` real frames, and the caches.
        """
        if drop_extra_pre_encoded or bypass_pre_encode:
            raise ValueError(
                f"drop_extra_pre_encoded={drop_extra_pre_encoded}, bypass_pre_encode={bypass_pre_encode}: "
                "expected frames of features that do not overlap"
            )
        if processed_signal_length is None:
            count, _, frames = processed_signal.shape
            processed_signal_length = torch.full((count,), frames, device=processed_signal.device)
        if cache_last_channel is None:
            encoded, lengths = self(audio_signal=processed_signal, length=processed_signal_length)
            return encoded, lengths, None, None, None
        is_last = torch.full_like(processed_signal_length, keep_all_outputs, dtype=torch.bool)
        state = cache_last_channel[0, :, 0]
        encoded, lengths, state = self.step(processed_signal, processed_signal_length, state, is_last)
        return encoded, lengths, state[None, :, None], cache_last_time, cache_last_channel_len

    def _start(self, streams: int) -> EncoderState:
        if self.is_bidirectional:
            raise ValueError("a bidirectional encoder needs the whole utterance: only forward-only models can stream")
        recurrent = tuple(layer.start(streams) for layer in self.layers)  # type: ignore[operator]
        lookahead = None if self.lookahead is None else self.lookahead[0].start(streams)  # type: ignore[operator]
        return EncoderState(tuple(self.conv.start(streams)), recurrent, lookahead)
