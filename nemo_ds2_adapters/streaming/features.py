"""Features of streams whose samples arrive in chunks: the frames that the whole utterances have."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nemo_ds2_adapters.modules import StreamingMelPreprocessor

NO_SAMPLES = torch.zeros(0)


@dataclass(frozen=True)
class PendingSamples:
    """Of one stream, the samples that frames to come will see.

    Args:
        samples: `[N]`, on the CPU.
        frames_given: frames of these that have been given already, and are only there as context.
    """

    samples: Tensor = NO_SAMPLES
    frames_given: int = 0


@torch.no_grad()
def step_features(
    preprocessor: StreamingMelPreprocessor,
    pending: Sequence[PendingSamples],
    samples: Sequence[Tensor],
    is_last: Sequence[bool],
) -> tuple[Tensor, Tensor, list[PendingSamples]]:
    """The frames of a batch of streams that are complete by now.

    Args:
        preprocessor: of the model, in eval mode.
        pending: of each stream, `PendingSamples()` at its beginning.
        samples: `[N]` of each, new ones, on the CPU.
        is_last: whether a stream ends with these.

    Returns:
        `[B, features, T]`, zero beyond `[B]` real frames, on the preprocessor's device, and what is pending now.
    """
    signals = [torch.cat([old.samples, new]) for old, new in zip(pending, samples, strict=True)]
    hop, device = preprocessor.featurizer.hop_length, preprocessor.mean.device
    lengths = torch.tensor([len(signal) for signal in signals])
    every = preprocessor.mean.new_zeros(len(signals), len(preprocessor.mean), 0)
    if len(signals) and int(lengths.max()) >= hop:
        every, _ = preprocessor(input_signal=pad_sequence(signals, True).to(device), length=lengths.to(device))
    ready = [n // hop if last else preprocessor.complete_frames(n) for n, last in zip(lengths.tolist(), is_last)]
    new = [one[:, old.frames_given : end].T for one, old, end in zip(every, pending, ready)]
    after = []
    for signal, end in zip(signals, ready):
        given = min(end, preprocessor.context_frames)
        after.append(PendingSamples(signal[(end - given) * hop :], given))
    if not new:
        return every, lengths, after
    counts = torch.tensor([len(one) for one in new], device=device)
    return pad_sequence(new, batch_first=True).transpose(1, 2), counts, after
