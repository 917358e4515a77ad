"""Prefix activations in the place of recordings: what NeMo's training and validation steps are fed with."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from nemo.collections.asr.data.audio_to_text_dali import DALIOutputs
from nemo.collections.asr.models import ASRModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from nemo_ds2_adapters.activations.cache import Key, PrefixCache
from nemo_ds2_adapters.adapters.fingerprint import fingerprint

COMPUTED_AT_ONCE = 32  # utterances; a recurrent layer takes a tenth less for each than with 16
DATA_SETTINGS = ("trim", "channel_selector")  # of NeMo's dataset, beside those of its featurizer

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


class PrefixDataset(Dataset[Item | list[Item]]):
    """NeMo's dataset with the activations of one point instead of sound; `compute` fills the cache first.

    Args:
        dataset: one of NeMo's datasets of recordings and transcripts (`AudioToCharDataset`, `AudioToBPEDataset`).
        model: whose prefix it is, fit for it as `why_not_exact` says.
        point: of the encoder.
        cache: where activations are and go.
        dtype: precision in the cache; None keeps the model's.
    """

    def __init__(
        self, dataset: Any, model: ASRModel, point: int, cache: PrefixCache, dtype: torch.dtype | None = None
    ) -> None:
        self.dataset = dataset
        self._model = model
        self.point = point
        self._cache = cache
        self._parameter = next(model.encoder.conv.parameters())
        self._dtype = dtype
        self._keys = self._make_keys()

    def compute(self, precision: torch.dtype | None = None, progress: bool = True) -> int:
        """Run what the cache does not have through the prefix.

        Args:
            precision: of mixed-precision arithmetic (`torch.autocast`), None for none.
            progress: show a bar.

        Returns:
            how many utterances that were.
        """
        missing = [i for i, key in enumerate(self._keys) if key not in self._cache]
        missing.sort(key=lambda i: self.dataset.manifest_processor.collection[i].duration)
        device = self._parameter.device.type
        autocast = torch.autocast(device, dtype=precision, enabled=precision is not None)
        loader = DataLoader(Subset(self.dataset, missing), COMPUTED_AT_ONCE, collate_fn=self.dataset.collate_fn)
        with tqdm(total=len(missing), desc="frozen part", unit="utt", leave=False, disable=not progress) as bar:
            for k, (signal, signal_length, *_) in enumerate(loader):
                # In the mode of training, without which a CPU's recurrent layers take another way, slower for batches.
                with torch.enable_grad(), autocast:
                    activations, lengths = self._run(signal, signal_length)
                for i, utterance, length in zip(missing[k * COMPUTED_AT_ONCE :], activations, lengths.tolist()):
                    # Not a view: that would keep the whole batch.
                    self._cache.put(self._keys[i], utterance[:length].to(self._dtype, copy=True))
                bar.update(len(signal))
        return len(missing)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int | Sequence[int]) -> Item | list[Item]:
        return self.item(index) if isinstance(index, int) else [self.item(int(i)) for i in index]

    def durations(self, utterances: Sequence[int]) -> list[float]:
        """Seconds of each."""
        return [self.dataset.manifest_processor.collection[i].duration for i in utterances]

    def words(self, utterances: Sequence[int]) -> int:
        """Words of their references."""
        return sum(len(self.dataset.manifest_processor.collection[i].text_raw.split()) for i in utterances)

    def collate_fn(self, items: Sequence[Item]) -> PrefixBatch:
        """Padded to the longest, activations with zeros."""
        activations, tokens = zip(*items)
        padded = pad_sequence(list(activations), batch_first=True).to(self._parameter.dtype)
        pad_id = self.dataset.manifest_processor.pad_id
        return PrefixBatch(
            padded.transpose(1, 2),
            torch.tensor([len(a) for a in activations]),
            pad_sequence(list(tokens), batch_first=True, padding_value=pad_id),
            torch.tensor([len(t) for t in tokens]),
        )

    def item(self, index: int) -> Item:
        """Activations and tokens of one utterance.

        Raises:
            LookupError: its activations are gone from the cache, or were never computed.
        """
        activations = self._cache.get(self._keys[index])
        if activations is None:
            raise LookupError(f"utterance {index} is not in the cache: its file was removed, or compute() did not run")
        tokens, _ = self.dataset.manifest_processor.process_text_by_id(index)
        return activations, torch.tensor(tokens).long()

    def _run(self, signal: Tensor, signal_length: Tensor) -> tuple[Tensor, Tensor]:
        device = self._parameter.device
        features, lengths = self._model.preprocessor(input_signal=signal.to(device), length=signal_length.to(device))
        return self._model.encoder.forward_prefix(features, lengths, self.point)

    def _make_keys(self) -> list[Key]:
        settings = {name: getattr(self.dataset, name, None) for name in DATA_SETTINGS}
        featurizer = self.dataset.featurizer
        common = {
            "base": fingerprint(self._model),
            "point": self.point,
            "precision": str(self._dtype or self._parameter.dtype),
            "data": {**settings, "sample_rate": featurizer.sample_rate, "int_values": featurizer.int_values},
        }
        samples = self.dataset.manifest_processor.collection
        return [{**common, "audio": audio_identity(s.audio_file, s.offset, s.duration)} for s in samples]


def audio_identity(path: str | Path, offset: float | None, duration: float) -> list[str | float | None]:
    """What tells a recording from another, or from what the file was before: path, bytes, ns of its last change."""
    resolved = Path(path).resolve()
    state = resolved.stat()
    return [str(resolved), state.st_size, state.st_mtime_ns, offset, duration]


def prefix_loader(loader: DataLoader, dataset: PrefixDataset) -> DataLoader:
    """A loader like NeMo's, with the same batches, of activations."""
    return DataLoader(
        dataset=dataset,
        batch_size=loader.batch_size,
        sampler=loader.sampler,
        collate_fn=dataset.collate_fn,
        drop_last=loader.drop_last,
        pin_memory=loader.pin_memory,
    )
