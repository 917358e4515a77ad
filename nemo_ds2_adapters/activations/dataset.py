"""Prefix activations in the place of recordings: what training and validation steps are fed with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch
from nemo.collections.asr.data.audio_to_text_dali import DALIOutputs
from nemo.collections.asr.models import ASRModel
from nemo.collections.asr.parts.preprocessing.segment import AudioSegment
from nemo.collections.common.parts.preprocessing.parsers import make_parser
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from tqdm import tqdm

from nemo_ds2_adapters.activations.cache import Key, PrefixCache
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.data.manifest import Utterance

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
        utterances: with transcripts.
        point: of the encoder.
        cache: where activations are and go: one for all, or one for each utterance.
        options: how transcripts are read, as in NeMo's data sections (`parser`, ...); what is not in them is as the
            base was trained.
    """

    def __init__(
        self,
        model: ASRModel,
        utterances: Sequence[Utterance],
        point: int,
        cache: PrefixCache | Sequence[PrefixCache],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.utterances, self.point = utterances, point
        self._model = model
        self._caches = [cache] * len(utterances) if isinstance(cache, PrefixCache) else cache
        self._tokens = tokeniser(model, options or {})
        self._pad_id = _special_id(model, "pad_id") or 0
        self._parameter = next(model.encoder.conv.parameters())
        common = {"base": fingerprint(model), "point": point, "arithmetic": str(self._parameter.dtype)}
        self._keys: list[Key] = [
            {**common, "audio": audio_identity(u.audio, u.offset, u.duration)} for u in utterances
        ]

    def compute(self, precision: torch.dtype | None = None, progress: bool = False) -> int:
        """Run what the cache does not have through the prefix.

        Args:
            precision: of mixed-precision arithmetic (`torch.autocast`), None for none.
            progress: show a bar.

        Returns:
            how many utterances that were.

        Raises:
            InputError: a recording cannot be read, or the cache's folder not be written.
        """
        missing = [i for i, (key, cache) in enumerate(zip(self._keys, self._caches)) if key not in cache]
        missing.sort(key=lambda i: self.utterances[i].duration)
        autocast = torch.autocast(self._parameter.device.type, dtype=precision, enabled=precision is not None)
        with tqdm(total=len(missing), desc="frozen part", unit="utt", leave=False, disable=not progress) as bar:
            for start in range(0, len(missing), COMPUTED_AT_ONCE):
                some = missing[start : start + COMPUTED_AT_ONCE]
                signals = [self._signal(self.utterances[i]) for i in some]
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

    def words(self, positions: Sequence[int]) -> int:
        """Words of their references."""
        return sum(len(self.utterances[i].text.split()) for i in positions)

    def recording(self, position: int) -> str:
        """What an utterance's sound has in common with that of every copy of its recording, and with no other."""
        utterance = self.utterances[position]
        return f"{content_hash(utterance.audio)} {utterance.offset}"

    def item(self, position: int) -> Item:
        """Activations and tokens of one utterance.

        Raises:
            LookupError: its activations are gone from the cache, or were never computed.
        """
        activations = self._caches[position].get(self._keys[position])
        if activations is None:
            raise LookupError(f"utterance {position} is not in the cache: its file was removed, or compute() not run")
        return activations, torch.tensor(self._tokens(self.utterances[position].text)).long()

    def collate_fn(self, items: Sequence[Item]) -> PrefixBatch:
        """Padded to the longest, activations with zeros."""
        activations, tokens = zip(*items)
        return PrefixBatch(
            pad_sequence(list(activations), batch_first=True).to(self._parameter.dtype).transpose(1, 2),
            torch.tensor([len(a) for a in activations]),
            pad_sequence(list(tokens), batch_first=True, padding_value=self._pad_id),
            torch.tensor([len(t) for t in tokens]),
        )

    def _signal(self, utterance: Utterance) -> Tensor:
        sample_rate = self._model.cfg.preprocessor.sample_rate
        segment = AudioSegment.from_file(
            str(utterance.audio),
            target_sr=sample_rate,
            offset=utterance.offset,
            duration=utterance.duration,
            channel_selector="average",
        )
        return torch.tensor(segment.samples, dtype=torch.float)

    def _run(self, signals: list[Tensor]) -> tuple[Tensor, Tensor]:
        device = self._parameter.device
        features, lengths = self._model.preprocessor(
            input_signal=pad_sequence(signals, batch_first=True).to(device),
            length=torch.tensor([len(signal) for signal in signals], device=device),
        )
        return self._model.encoder.forward_prefix(features, lengths, self.point)


def tokeniser(model: ASRModel, options: Mapping[str, Any]) -> Callable[[str], list[int]]:
    """What makes output units of a transcript, as NeMo's data sets do.

    Args:
        model: whose units.
        options: of a data section; what is not in them is as the base was trained.
    """
    options = {**(model.cfg.get("train_ds") or {}), **options}
    if not hasattr(model, "tokenizer"):
        return make_parser(
            labels=list(model.decoder.vocabulary),
            name=options.get("parser", "en"),
            unk_id=options.get("unk_index", -1),
            blank_id=options.get("blank_index", -1),
            do_normalize=options.get("normalize_transcripts", False),
        )
    marked = options.get("use_start_end_token", False)
    before, after = ([_special_id(model, name)] if marked else [] for name in ("bos_id", "eos_id"))
    before, after = ([i for i in ids if i] for ids in (before, after))
    return lambda text: [*before, *model.tokenizer.text_to_ids(text), *after]


def audio_identity(path: str | Path, offset: float | None, duration: float) -> list[str | float | None]:
    """What tells a recording from another, or from what the file was before: path, bytes, ns of its last change."""
    resolved = Path(path).resolve()
    state = resolved.stat()
    return [str(resolved), state.st_size, state.st_mtime_ns, offset, duration]


def content_hash(path: Path) -> str:
    """Of a file's bytes."""
    state = path.stat()
    return _content_hash(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _content_hash(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _special_id(model: ASRModel, name: str) -> int | None:
    """Of a tokenizer, if it has one above 0."""
    found = getattr(getattr(model, "tokenizer", None), name, None)
    return found if isinstance(found, int) and found > 0 else None
