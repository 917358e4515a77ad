"""Utterances as a model is trained on them: samples and tokens, with no manifest in between."""

from collections.abc import Sequence
from typing import Any

import torch
from nemo.collections.asr.models import ASRModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from nemo_ds2_adapters.data.audio import read_audio
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.data.transcripts import Tokeniser

Item = tuple[Tensor, Tensor]  # samples [T] and tokens [U]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # signals [B, T], samples of each [B], tokens [B, U], tokens of each [B]


class UtteranceDataset(Dataset[Any]):
    """What NeMo's `AudioToCharDataset` or `AudioToBPEDataset` gives for a manifest, for utterances; channels averaged.

    Utterances keep their positions: nothing is left out.

    Args:
        utterances: transcribed.
        model: whose sample rate, vocabulary and reading of transcripts are used.

    Raises:
        InputError: a transcript that the model's parser refuses.
    """

    def __init__(self, utterances: Sequence[Utterance], model: ASRModel) -> None:
        tokeniser = Tokeniser(model)
        self.utterances = utterances
        self.sample_rate = int(model.cfg.sample_rate)
        self.tokens = [torch.tensor(tokeniser(utterance), dtype=torch.long) for utterance in utterances]
        self.pad_id = tokeniser.pad_id

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int | Sequence[int]) -> Item | list[Item]:
        """One utterance, or the batch that a sampler of batches asks for. Raises InputError: a recording cannot be
        read."""
        return self.item(index) if isinstance(index, int) else [self.item(int(i)) for i in index]

    def item(self, index: int) -> Item:
        """Samples and tokens of one utterance. Raises what `__getitem__` does."""
        return torch.from_numpy(read_audio(self.utterances[index], self.sample_rate)), self.tokens[index]

    def collate_fn(self, items: Sequence[Item]) -> Batch:
        """Padded to the longest, with silence and with the model's padding unit."""
        signals, tokens = zip(*items)
        return (
            pad_sequence(list(signals), batch_first=True),
            torch.tensor([len(signal) for signal in signals]),
            pad_sequence(list(tokens), batch_first=True, padding_value=self.pad_id),
            torch.tensor([len(each) for each in tokens]),
        )
