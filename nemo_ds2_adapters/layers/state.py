"""What layers remember of streams that arrive in chunks."""

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
        counts: `[B]`, how many there are of each row, those before the first frame of an utterance not counted.
        padding: frames of zeros before the first.
    """

    frames: Tensor
    counts: Tensor
    padding: int

    @classmethod
    def at_start(cls, rows: int, width: int, kernel: int, padding: int, like: Tensor) -> Self:
        """Before the first frame: all zeros, of device and precision of `like`."""
        counts = torch.zeros(rows, dtype=torch.int64, device=like.device)
        return cls(like.new_zeros(rows, kernel - 1, width), counts, padding)

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
        held = self.counts + self.padding
        real = held + lengths
        valid = real if is_last is None else real + padding * is_last
        width = max(size + x.shape[1] + (0 if is_last is None else padding), size + 1)
        # Each row's pending frames, its new ones, then zeros, whatever the others have: picked by position.
        every = torch.cat([self.frames, x, x.new_zeros(len(x), 1, x.shape[2])], dim=1)
        position = torch.arange(width + size, device=x.device).unsqueeze(0)
        counts = held.unsqueeze(1)
        source = torch.where(position < counts, position, size + position - counts)
        source = torch.where(position < real.unsqueeze(1), source, size + x.shape[1])
        outputs = torch.div(valid - (size + 1), stride, rounding_mode="floor").add(1).clamp(min=0)
        kept = (outputs * stride).unsqueeze(1) + torch.arange(size, device=x.device)
        counts = valid - outputs * stride - self.padding
        pending = PendingFrames(_pick(every, source.gather(1, kept)), counts, self.padding)
        return _pick(every, source[:, :width]), outputs, pending


@dataclass(frozen=True)
class EncoderState:
    """What a forward-only encoder remembers of a batch of streams, one row of each tensor per stream."""

    convolutions: tuple[PendingFrames, ...]
    recurrent: tuple[HiddenState, ...]
    lookahead: PendingFrames | None

    def rows(self) -> Tensor:
        """All of it as `[B, N]`, one row per stream; zeros before the first frame."""
        return torch.cat([part.flatten(1) for part in self._parts()], dim=1)

    def of_rows(self, rows: Tensor) -> "EncoderState":
        """The inverse; of this state only the shapes matter."""
        shapes = [part.shape[1:] for part in self._parts()]
        split = rows.split([shape.numel() for shape in shapes], dim=1)
        parts = iter([part.unflatten(1, shape) for part, shape in zip(split, shapes)])
        recurrent = tuple(tuple(next(parts) for _ in hidden) for hidden in self.recurrent)
        pending = [PendingFrames(next(parts), next(parts).squeeze(1).long(), old.padding) for old in self._pending()]
        lookahead = None if self.lookahead is None else pending.pop()
        return EncoderState(tuple(pending), recurrent, lookahead)

    def _parts(self) -> list[Tensor]:
        recurrent = [part for hidden in self.recurrent for part in hidden]
        frames = [part for one in self._pending() for part in (one.frames, one.counts.unsqueeze(1).to(one.frames))]
        return recurrent + frames

    def _pending(self) -> list[PendingFrames]:
        return [*self.convolutions, *([] if self.lookahead is None else [self.lookahead])]


def _pick(x: Tensor, positions: Tensor) -> Tensor:
    """Frames `[B, N, D]` of `[B, T, D]` at the positions `[B, N]` of each row."""
    return x.gather(1, positions.unsqueeze(-1).expand(-1, -1, x.shape[2]))
