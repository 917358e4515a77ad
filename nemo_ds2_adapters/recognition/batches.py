"""Recordings of many users in batches of similar length, whatever runs them."""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from nemo_ds2_adapters.data.audio import read_audio
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError, NemoDs2Error
from nemo_ds2_adapters.recognition.windows import Window, join_windows, plan_windows

Users = dict[int, str | None]  # by number of the utterance; None for the base
Run = Callable[[np.ndarray, np.ndarray, list[int]], tuple[np.ndarray, np.ndarray]]
OnError = Callable[[int, str], None]


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


def run_batches(
    sample_rate: int,
    run: Run,
    utterances: Mapping[int, Utterance],
    frame_seconds: float,
    batch_size: int,
    failures: Failures,
    progress: bool = True,
    max_seconds: float = math.inf,
    overlap_seconds: float = 0.0,
    usable: Callable[[Sequence[int]], Collection[int]] = set,
) -> Iterator[dict[int, np.ndarray]]:
    """Run utterances in batches of similar length, longest first.

    Args:
        sample_rate: of the signals, Hz.
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
        after each batch the outputs `[T', ...]` of the utterances that it completed, by number.
    """
    longest, overlap = max_seconds / frame_seconds, overlap_seconds / frame_seconds
    windows = {n: plan_windows(u.duration / frame_seconds, longest, overlap) for n, u in utterances.items()}
    items = [(n, window) for n, planned in windows.items() for window in planned]
    items.sort(key=lambda item: -item[1].seconds(frame_seconds, utterances[item[0]].duration))
    outputs: dict[int, dict[Window, np.ndarray]] = defaultdict(dict)
    with tqdm(total=len(items), desc="transcribing", disable=not progress) as bar:
        for first in range(0, len(items), batch_size):
            audio = {}
            for number, window in items[first : first + batch_size]:
                bar.update()
                utterance = utterances[number]
                start, seconds = window.start * frame_seconds, window.seconds(frame_seconds, utterance.duration)
                try:
                    audio[number, window] = read_audio(utterance, sample_rate, start, seconds)
                except InputError as error:
                    failures.add(number, error)
            numbers = set(usable([number for number, _ in audio]))
            batch = {item: samples for item, samples in audio.items() if item[0] in numbers}
            if not batch:
                continue
            signals, lengths = padded(list(batch.values()))
            found, frames = run(signals, lengths, [number for number, _ in batch])
            for (number, window), output, length in zip(batch, found, frames.tolist()):
                outputs[number][window] = output[:length]
            complete = [n for n in sorted({number for number, _ in batch}) if len(outputs[n]) == len(windows[n])]
            yield {n: join_windows(windows[n], [outputs[n][w] for w in windows[n]]) for n in complete}
            for number in complete:
                del outputs[number]


def padded(recordings: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Signals `[B, T]` with zeros behind the shorter ones, and the samples of each `[B]`."""
    lengths = np.array([len(samples) for samples in recordings])
    signals = np.zeros((len(recordings), lengths.max()), np.float32)
    for row, samples in zip(signals, recordings):
        row[: len(samples)] = samples
    return signals, lengths


def usable_users(
    check: Callable[[str], object] | None, users: Users | None, failures: Failures
) -> Callable[[Sequence[int]], Collection[int]]:
    """Leaves out, and reports, the utterances whose user has no adapter that can be used: then `check` raises."""

    def usable(numbers: Sequence[int]) -> Collection[int]:
        if check is None or users is None or failures.on_error is None:
            return numbers  # without users all are, and without a listener the batch itself raises
        errors: dict[str | None, NemoDs2Error] = {}
        for user in {users[number] for number in numbers} - {None}:
            try:
                check(user)  # type: ignore[arg-type]
            except NemoDs2Error as error:
                errors[user] = error
        for number in numbers:
            if users[number] in errors:
                failures.add(number, errors[users[number]])
        return [number for number in numbers if users[number] not in errors]

    return usable
