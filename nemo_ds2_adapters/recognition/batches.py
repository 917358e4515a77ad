"""Recordings of many users through a model, in batches of similar length."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from nemo.collections.asr.models import EncDecCTCModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from nemo_ds2_adapters.adapters.enabling import enabled_adapters, enabled_names
from nemo_ds2_adapters.data.recordings import Recording
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.recognition.windows import Window, join_windows

Users = dict[int, str | None]  # by number of the utterance; None for the base
Run = Callable[[Tensor, Tensor, list[int]], tuple[Tensor, Tensor]]
OnError = Callable[[int, str], None]


class Item(NamedTuple):
    """A window of a recording."""

    number: int
    recording: Recording
    window: Window
    start: float  # seconds into the recording
    seconds: float


@dataclass
class Failures:
    """Utterances that cannot be transcribed: reported once each, or raised if nobody listens."""

    on_error: OnError | None

    def __post_init__(self) -> None:
        self.numbers: set[int] = set()

    def add(self, number: int, error: InputError | AdapterFileError) -> None:
        """Report an utterance."""
        if self.on_error is None:
            raise error
        if number not in self.numbers:
            self.numbers.add(number)
            self.on_error(number, str(error))


def run_recordings(
    model: EncDecCTCModel,
    run: Run,
    recordings: dict[int, Recording],
    windows: dict[int, list[Window]],
    frame_seconds: float,
    batch_size: int,
    failures: Failures,
    progress: bool,
    usable: Callable[[Sequence[int]], Collection[int]] = set,
) -> Iterator[dict[int, Tensor]]:
    """Run all windows of all recordings, longest first.

    Args:
        model: whose sample rate and device the signals get.
        run: signals `[B, T]`, samples of each `[B]` and numbers of the utterances -> outputs `[B, T', ...]` and their
            real frames `[B]`.
        recordings: by number.
        windows: of each.
        frame_seconds: seconds between output frames.
        batch_size: windows per batch.
        failures: takes recordings that cannot be read.
        progress: show a progress bar.
        usable: which of the utterances that are to form a batch can be run at all.

    Yields:
        after each batch the outputs `[T', ...]` of the recordings that it completed, on the CPU, by number.
    """
    device = next(model.parameters()).device
    items = sorted(_items(recordings, windows, frame_seconds), key=lambda item: -item.seconds)
    outputs: dict[int, dict[Window, Tensor]] = defaultdict(dict)
    with tqdm(total=len(items), desc="transcribing", disable=not progress) as bar:
        for first in range(0, len(items), batch_size):
            planned = items[first : first + batch_size]
            bar.update(len(planned))
            batch, audio = _read(planned, int(model.cfg.sample_rate), failures)
            numbers = set(usable([item.number for item in batch]))
            kept = [i for i, item in enumerate(batch) if item.number in numbers]
            if not kept:
                continue
            lengths = torch.tensor([len(audio[i]) for i in kept], device=device)
            signals = pad_sequence([audio[i] for i in kept], batch_first=True).to(device)
            found, frames = run(signals, lengths, [batch[i].number for i in kept])
            for i, output, length in zip(kept, found.cpu(), frames.tolist()):
                outputs[batch[i].number][batch[i].window] = output[:length]
            complete = [n for n in sorted({batch[i].number for i in kept}) if len(outputs[n]) == len(windows[n])]
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
        errors: dict[str | None, InputError | AdapterFileError] = {}
        for user in {users[number] for number in numbers}:
            try:
                with bank.route([user]):
                    pass
            except (InputError, AdapterFileError) as error:
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


def _items(recordings: dict[int, Recording], windows: dict[int, list[Window]], frame_seconds: float) -> Iterator[Item]:
    for number, recording in recordings.items():
        for window in windows[number]:
            start = window.start * frame_seconds
            stop = recording.seconds if window.stop is None else window.stop * frame_seconds
            yield Item(number, recording, window, start, stop - start)


def _read(items: Sequence[Item], sample_rate: int, failures: Failures) -> tuple[list[Item], list[Tensor]]:
    batch, audio = [], []
    for item in items:
        try:
            audio.append(torch.from_numpy(item.recording.samples(sample_rate, item.start, item.seconds)))
            batch.append(item)
        except InputError as error:
            failures.add(item.number, error)
    return batch, audio
