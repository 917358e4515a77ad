"""What layers remember of streams that arrive in chunks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

HiddenState = tuple[Tensor, ...]  # of a forward-only recurrent layer, [B, d_model] each: one, of an LSTM two


@dataclass(frozen=True)
class PendingFrames:
    """Of a batch of streams, the last frames of each, which outputs still to come will see.

    Args:
        frames: `[B, kernel - 1, D]`, each row's at its beginning, zero beyond them.
        counts: `[B]`, how many there are of each row.
    """

    frames: Tensor
    counts: Tensor

    @classmethod
    def at_start(cls, rows: int, width: int, kernel: int, padding: int, like: Tensor) -> Self:
        """Before the first frame, `padding` frames of zeros; device and precision of `like`."""
        counts = torch.full((rows,), padding, device=like.device)
        return cls(like.new_zeros(rows, kernel - 1, width), counts)

    def __getitem__(self, rows: Tensor) -> "PendingFrames":
        """Of some of the streams, by their numbers or by a mask."""
        return PendingFrames(self.frames[rows], self.counts[rows])

    @staticmethod
    def cat(parts: Sequence["PendingFrames"]) -> "PendingFrames":
        """Of all streams of several batches."""
        return PendingFrames(torch.cat([p.frames for p in parts]), torch.cat([p.counts for p in parts]))

    def slide(
        self, x: Tensor, lengths: Tensor, stride: int, padding: int, is_last: Tensor | None
    ) -> tuple[Tensor, Tensor, "PendingFrames"]:
        """What the convolution's window passes over, now that new frames have come.

        Args:
            x: `[B, T, D]`, new frames.
            lengths: `[B]`, real ones of each row, 0 for none.
            stride: frames that the window moves by.
            padding: frames of zeros that follow the last real one.
            is_last: bool `[B]`, rows that end with their new frames; None: none does.

        Returns:
            `[B, W, D]` what a convolution without padding is to be run over, `[B]` how many of its outputs are real,
            and what later ones will see.
        """
        size = self.frames.shape[1]
        real = self.counts + lengths
        valid = real if is_last is None else real + padding * is_last
        width = max(size + x.shape[1] + (0 if is_last is None else padding), size + 1)
        # Each row's pending frames, its new ones, then zeros, whatever the others have: picked by position.
        every = torch.cat([self.frames, x, x.new_zeros(len(x), 1, x.shape[2])], dim=1)
        position = torch.arange(width + size, device=x.device).unsqueeze(0)
        counts = self.counts.unsqueeze(1)
        source = torch.where(position < counts, position, size + position - counts)
        source = torch.where(position < real.unsqueeze(1), source, size + x.shape[1])
        outputs = torch.div(valid - (size + 1), stride, rounding_mode="floor").add(1).clamp(min=0)
        kept = (outputs * stride).unsqueeze(1) + torch.arange(size, device=x.device)
        pending = PendingFrames(_pick(every, source.gather(1, kept)), valid - outputs * stride)
        return _pick(every, source[:, :width]), outputs, pending


@dataclass(frozen=True)
class EncoderState:
    """What a forward-only encoder remembers of a batch of streams, one row of each tensor per stream."""

    convolutions: tuple[PendingFrames, ...]
    recurrent: tuple[HiddenState, ...]
    lookahead: PendingFrames | None

    def __getitem__(self, rows: Tensor) -> "EncoderState":
        """Of some of the streams, by their numbers or by a mask: others leave the batch, or change their order."""
        recurrent = tuple(tuple(part[rows] for part in hidden) for hidden in self.recurrent)
        lookahead = None if self.lookahead is None else self.lookahead[rows]
        return EncoderState(tuple(pending[rows] for pending in self.convolutions), recurrent, lookahead)

    @staticmethod
    def cat(states: Sequence["EncoderState"]) -> "EncoderState":
        """Of all streams of several batches: streams join."""
        convolutions = tuple(map(PendingFrames.cat, zip(*(state.convolutions for state in states))))
        layers = zip(*(state.recurrent for state in states))
        recurrent = tuple(tuple(map(torch.cat, zip(*hidden))) for hidden in layers)
        lookahead = [state.lookahead for state in states if state.lookahead is not None]
        return EncoderState(convolutions, recurrent, PendingFrames.cat(lookahead) if lookahead else None)


def _pick(x: Tensor, positions: Tensor) -> Tensor:
    """Frames `[B, N, D]` of `[B, T, D]` at the positions `[B, N]` of each row."""
    return x.gather(1, positions.unsqueeze(-1).expand(-1, -1, x.shape[2]))
