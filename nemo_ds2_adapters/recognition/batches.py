"""Recordings of many users through a model, in batches of similar length."""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from nemo.collections.asr.models import EncDecCTCModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.enabling import enabled_adapters, enabled_names
from nemo_ds2_adapters.data.audio import read_audio
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError, NemoDs2Error
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.recognition.windows import Window, join_windows, plan_windows
from nemo_ds2_adapters.store.store import AdapterStore

Users = dict[int, str | None]  # by number of the utterance; None for the base
Run = Callable[[Tensor, Tensor, list[int]], tuple[Tensor, Tensor]]
OnError = Callable[[int, str], None]
RESIDENT_BATCHES = 4  # a bank made for one call has room for this many batches of different users


@dataclass
class Failures:
    """Utterances that cannot be transcribed: reported once each, or raised if nobody listens."""

    on_error: OnError | None = None

    def __post_init__(self) -> None:
        self.numbers: set[int] = set()

    def add(self, number: int, error: NemoDs2Error) -> None:
        """Report an utterance."""
        if self.on_error is None:
            raise error
        if number not in self.numbers:
            self.numbers.add(number)
            self.on_error(number, str(error))


def check_batch_size(batch_size: int) -> None:
    """Refuse what is no number of utterances.

    Raises:
        InputError: shows it.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size={batch_size}: expected a whole number of at least 1")


def bank_of(
    model: EncDecCTCModel,
    store: AdapterStore | AdapterBank | None,
    batch_size: int,
    default: Adapter | None = None,
) -> AdapterBank:
    """The bank, or one for the adapters of a store, or for those attached to the model.

    Args:
        model: a DeepSpeech2.
        store: where adapters are.
        batch_size: of the batches to come.
        default: for people of whom the store has no adapter.

    Raises:
        InputError: the bank is for another model or has its own default, or the model takes no adapters per row.
    """
    if not isinstance(store, AdapterBank):
        return AdapterBank(model, store, default, capacity=RESIDENT_BATCHES * batch_size)
    if default is not None:
        raise InputError("a default is given beside a bank: make the bank with it, AdapterBank(..., default=)")
    store.check_model(model)
    return store


def run_batches(
    model: EncDecCTCModel,
    run: Run,
    utterances: Mapping[int, Utterance],
    frame_seconds: float,
    batch_size: int,
    failures: Failures,
    progress: bool = True,
    max_seconds: float = math.inf,
    overlap_seconds: float = 0.0,
    usable: Callable[[Sequence[int]], Collection[int]] = set,
) -> Iterator[dict[int, Tensor]]:
    """Run utterances in batches of similar length, longest first.

    Args:
        model: whose sample rate and device the signals get.
        run: signals `[B, T]`, samples of each `[B]` and numbers of the utterances -> outputs `[B, T', ...]` and their
            real frames `[B]`.
        utterances: by number.
        frame_seconds: seconds between output frames.
        batch_size: utterances, or windows of them, per batch.
        failures: takes recordings that cannot be read.
        progress: show a progress bar.
        max_seconds: longest window; what is longer is cut.
        overlap_seconds: of neighbouring windows.
        usable: which of the utterances that are to form a batch can be run at all.

    Yields:
        after each batch the outputs `[T', ...]` of the utterances that it completed, on the CPU, by number.
    """
    device, sample_rate = next(model.parameters()).device, int(model.cfg.sample_rate)
    longest, overlap = max_seconds / frame_seconds, overlap_seconds / frame_seconds
    windows = {n: plan_windows(u.duration / frame_seconds, longest, overlap) for n, u in utterances.items()}
    items = [(n, window) for n, planned in windows.items() for window in planned]
    items.sort(key=lambda item: -item[1].seconds(frame_seconds, utterances[item[0]].duration))
    outputs: dict[int, dict[Window, Tensor]] = defaultdict(dict)
    with tqdm(total=len(items), desc="transcribing", disable=not progress) as bar:
        for first in range(0, len(items), batch_size):
            audio = {}
            for number, window in items[first : first + batch_size]:
                bar.update()
                utterance = utterances[number]
                start, seconds = window.start * frame_seconds, window.seconds(frame_seconds, utterance.duration)
                try:
                    audio[number, window] = torch.from_numpy(read_audio(utterance, sample_rate, start, seconds))
                except InputError as error:
                    failures.add(number, error)
            numbers = set(usable([number for number, _ in audio]))
            batch = {item: samples for item, samples in audio.items() if item[0] in numbers}
            if not batch:
                continue
            lengths = torch.tensor([len(samples) for samples in batch.values()], device=device)
            signals = pad_sequence(list(batch.values()), batch_first=True).to(device)
            found, frames = run(signals, lengths, [number for number, _ in batch])
            for (number, window), output, length in zip(batch, found.cpu(), frames.tolist()):
                outputs[number][window] = output[:length]
            complete = [n for n in sorted({number for number, _ in batch}) if len(outputs[n]) == len(windows[n])]
            yield {n: join_windows(windows[n], [outputs[n][w] for w in windows[n]]) for n in complete}
            for number in complete:
                del outputs[number]


def usable_users(
    bank: AdapterBank | None, users: Users | None, failures: Failures
) -> Callable[[Sequence[int]], Collection[int]]:
    """Leaves out, and reports, the utterances whose user the bank cannot serve."""

    def usable(numbers: Sequence[int]) -> Collection[int]:
        if bank is None or users is None or failures.on_error is None:
            return numbers  # without users all are, and without a listener the batch itself raises
        errors: dict[str | None, NemoDs2Error] = {}
        for user in {users[number] for number in numbers}:
            try:
                with bank.route([user]):
                    pass
            except NemoDs2Error as error:
                errors[user] = error
        for number in numbers:
            if users[number] in errors:
                failures.add(number, errors[users[number]])
        return [number for number in numbers if users[number] not in errors]

    return usable


@contextmanager
def serving(model: EncDecCTCModel, routed: bool) -> Iterator[None]:
    """Inference in this block; afterwards modes and enabled adapters are as they were found.

    Args:
        model: put into eval mode.
        routed: whether adapters are routed to rows, so that none may be enabled for all.
    """
    modes = [(module, module.training) for module in model.modules()]
    disabled = enabled_adapters(model, None) if routed and enabled_names(model) else nullcontext()
    try:
        with disabled, torch.inference_mode():
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
