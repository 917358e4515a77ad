"""Prefix activations in the place of recordings: what training and validation steps are fed with."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import torch
from nemo.collections.asr.data.audio_to_text_dali import DALIOutputs
from nemo.collections.asr.models import ASRModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from tqdm import tqdm

from nemo_ds2_adapters.activations.cache import Key, PrefixCache
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.data.audio import audio_identity
from nemo_ds2_adapters.data.dataset import UtteranceDataset
from nemo_ds2_adapters.errors import InputError

COMPUTED_AT_ONCE = 32  # utterances; a recurrent layer takes a tenth less for each than with 16

Item = tuple[Tensor, Tensor]  # activations [T', D] and tokens [U]


class PrefixBatch(DALIOutputs):
    """Activations `[B, D, T']`, their lengths, tokens `[B, U]` and their lengths.

    NeMo's steps take a batch of DALI as one that has passed the preprocessor; it is not a batch that Lightning could
    move or count by itself.
    """

    def __init__(self, activations: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> None:
        names = ("processed_signal", "processed_signal_len", "transcript", "transcript_len")
        super().__init__(dict(zip(names, (activations, lengths, tokens, token_lengths))))

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._outs)

    def to(self, *args: Any, **kwargs: Any) -> "PrefixBatch":
        """The same batch on another device."""
        return PrefixBatch(*(tensor.to(*args, **kwargs) for tensor in self))

    def pin_memory(self) -> "PrefixBatch":
        """The same batch in memory from which a GPU copies fast."""
        return PrefixBatch(*(tensor.pin_memory() for tensor in self))


class PrefixData(Dataset[Item | list[Item]]):
    """Utterances by position: the activations of one point, and the transcript in output units.

    `compute` fills the cache first.

    Args:
        model: whose prefix it is, fit for it as `why_not_exact` says.
        dataset: the utterances.
        point: of the encoder.
        cache: where activations are and go: one for all, or one for each utterance.

    Raises:
        InputError: a recording cannot be read.
    """

    def __init__(
        self, model: ASRModel, dataset: UtteranceDataset, point: int, cache: PrefixCache | Sequence[PrefixCache]
    ) -> None:
        self.utterances, self.point = dataset.utterances, point
        self._model, self._dataset = model, dataset
        self._caches = [cache] * len(dataset) if isinstance(cache, PrefixCache) else cache
        self._parameter = next(model.encoder.conv.parameters())
        common = {"base": fingerprint(model), "point": point, "arithmetic": str(self._parameter.dtype)}
        self._keys: list[Key] = [{**common, "audio": self._identity(i)} for i in range(len(dataset))]

    def compute(self, precision: torch.dtype | None = None, progress: bool = False) -> int:
        """Run what the cache does not have through the prefix; how many utterances that were.

        `precision` is that of mixed-precision arithmetic (`torch.autocast`), None for none.
        """
        missing = [i for i, (key, cache) in enumerate(zip(self._keys, self._caches)) if key not in cache]
        missing.sort(key=lambda i: self.utterances[i].duration)
        autocast = torch.autocast(self._parameter.device.type, dtype=precision, enabled=precision is not None)
        with tqdm(total=len(missing), desc="frozen part", unit="utt", leave=False, disable=not progress) as bar:
            for start in range(0, len(missing), COMPUTED_AT_ONCE):
                some = missing[start : start + COMPUTED_AT_ONCE]
                signals = [self._dataset.item(i)[0] for i in some]
                # In the mode of training, without which a CPU's recurrent layers take another way, slower for batches.
                with torch.enable_grad(), autocast:
                    activations, lengths = self._run(signals)
                for i, utterance, length in zip(some, activations, lengths.tolist()):
                    self._caches[i].put(self._keys[i], utterance[:length])
                bar.update(len(some))
        return len(missing)

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int | Sequence[int]) -> Item | list[Item]:
        return self.item(index) if isinstance(index, int) else [self.item(int(i)) for i in index]

    def durations(self, positions: Sequence[int]) -> list[float]:
        """Seconds of each."""
        return [self.utterances[i].duration for i in positions]

    def recording(self, position: int) -> str:
        """Hash of an utterance's samples: copies of a recording have the same, whatever their files are called."""
        return sha256(self._dataset.item(position)[0].numpy().tobytes()).hexdigest()

    def item(self, position: int) -> Item:
        """Activations and tokens of one utterance, or a LookupError: they are gone from the cache, or were never
        computed."""
        activations = self._caches[position].get(self._keys[position])
        if activations is None:
            raise LookupError(f"utterance {position} is not in the cache: its file was removed, or compute() not run")
        return activations, self._dataset.tokens[position]

    def collate_fn(self, items: Sequence[Item]) -> PrefixBatch:
        """Padded to the longest, activations with zeros."""
        activations, tokens = zip(*items)
        return PrefixBatch(
            pad_sequence(list(activations), batch_first=True).to(self._parameter.dtype).transpose(1, 2),
            torch.tensor([len(a) for a in activations]),
            pad_sequence(list(tokens), batch_first=True, padding_value=self._dataset.pad_id),
            torch.tensor([len(t) for t in tokens]),
        )

    def _identity(self, position: int) -> list[str | float]:
        utterance = self.utterances[position]
        try:
            return audio_identity(utterance) if utterance.samples is None else [self.recording(position)]
        except OSError as error:
            raise InputError(f"{utterance.label} cannot be read ({error.strerror})") from error

    def _run(self, signals: list[Tensor]) -> tuple[Tensor, Tensor]:
        device = self._parameter.device
        features, lengths = self._model.preprocessor(
            input_signal=pad_sequence(signals, batch_first=True).to(device),
            length=torch.tensor([len(signal) for signal in signals], device=device),
        )
        return self._model.encoder.forward_prefix(features, lengths, self.point)
