"""Recognising many people while they speak, in one batch."""

import threading
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from numbers import Real

import numpy as np
import soxr
import torch
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.checks import check_whole
from nemo_ds2_adapters.decoding.decoder import Decoder
from nemo_ds2_adapters.decoding.greedy import GreedyDecoder
from nemo_ds2_adapters.decoding.incremental import IncrementalDecoder
from nemo_ds2_adapters.decoding.search import DEFAULT, BeamDecoder, Search, SearchSettings
from nemo_ds2_adapters.errors import InputError, NemoDs2Error, StreamError
from nemo_ds2_adapters.modules import DeepSpeech2Encoder, StreamingMelPreprocessor
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.streaming.features import PendingSamples, step_features
from nemo_ds2_adapters.streaming.lease import Lease
from nemo_ds2_adapters.streaming.stream import Stream, Turn
from nemo_ds2_adapters.streaming.transcript import Transcript

STEP_SECONDS = 0.5  # most that a step takes of a stream: who feeds a long recording at once does not hold up others
RECIPE = (
    "train a base by the recipe deepspeech2_streaming (ds2-adapters train-base --config-name=deepspeech2_streaming)"
)


class Recogniser:
    """Recognises streams: each with its own state and adapter, all together in the batches of `step`.

        recogniser = Recogniser(model, AdapterBank(model, store))
        stream = recogniser.open("john")
        for samples in microphone:
            stream.feed(samples)
            recogniser.step()
            show(stream.partial)
        text = stream.finish().text

    A service calls `step` in a loop of its own; streams may be opened, fed and finished in any threads meanwhile.

    A stream keeps the version of the adapter with which it began. Somebody who is erased meanwhile is noticed after
    the bank's `check_seconds`: their stream fails with UnknownUserError, or goes on with the bank's default.

    Args:
        model: a forward-only DeepSpeech2 with `StreamingMelPreprocessor`; it is put into eval mode, and nobody may
            train or change it meanwhile. Adapters that are enabled in it serve all streams if there is no bank.
        bank: the users' adapters.
        search: a language model, and how much it and people's words count.
        pause_seconds: how long nothing but blanks ends a segment of the text; inf: nothing does.
        batch_size: most streams that are computed at once.

    Raises:
        InputError: the model cannot stream, or a setting is wrong; says what to do.
    """

    def __init__(
        self,
        model: EncDecCTCModel,
        bank: AdapterBank | None = None,
        *,
        search: SearchSettings = DEFAULT,
        pause_seconds: float = 1.2,
        batch_size: int = 64,
    ) -> None:
        check_streams(model)
        if bank is not None:
            bank.check_model(model)
        is_number = isinstance(pause_seconds, Real)
        if not is_number or not pause_seconds > 0:
            raise InputError(f"pause_seconds={pause_seconds}: expected a number above 0, inf for no pauses")
        check_whole("batch_size", batch_size, 1)
        self.model = model.eval()
        self.bank = bank
        self.sample_rate = int(model.cfg.sample_rate)
        self.pause_seconds = float(pause_seconds)
        self.batch_size = batch_size
        self._decoder = Decoder(model, timestamps=True, confidence=True)
        self._search = Search(model, search)
        self._stepping = threading.Lock()
        self._registering = threading.Lock()
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._closed: deque[Lease | None] = deque()  # where a dropped stream leaves its lease, whoever drops it

    def open(
        self, user: str | None = None, words: Sequence[str] | None = None, sample_rate: int | None = None
    ) -> Stream:
        """Begin a stream.

        Args:
            user: whose adapter to use; None for the base.
            words: that this person is likely to say; None takes those that the store has of the user.
            sample_rate: of the samples to come, Hz; None for the model's own.

        Raises:
            UnknownUserError: the user has no adapter, and the bank no default.
            InputError: a user without a bank, a sample rate that is none, no room in the bank, or a word that the
                model cannot write.
            AdapterFileError: the adapter cannot be used.
        """
        if user is not None and self.bank is None:
            raise InputError(f"user={user!r}: give the recogniser a bank of adapters, Recogniser(model, bank)")
        rate = self.sample_rate if sample_rate is None else sample_rate
        if not isinstance(rate, int) or rate < 1:
            raise InputError(f"sample_rate={rate}: expected a whole number of Hz")
        self.release_closed()
        resampler = None if rate == self.sample_rate else soxr.ResampleStream(rate, self.sample_rate, 1, "float32")
        if words is None:
            words = () if user is None or self.bank is None else self.bank.words(user)
        self._search.check(words)

        def new_decoder() -> IncrementalDecoder:
            needed = self._search.needed(words)
            return BeamDecoder(self._decoder, self._search, words) if needed else GreedyDecoder(self._decoder)

        transcript = Transcript(new_decoder, self._decoder.blank, self._decoder.frame_seconds, self.pause_seconds)
        lease = None if user is None or self.bank is None else Lease(self.bank, user)
        stream = Stream(self, self.model.encoder.start(1), lease, transcript, resampler, self._closed.append)
        with self._registering:
            self._streams.add(stream)
        return stream

    def step(self) -> int:
        """Recognise what has arrived, at most half a second of each stream.

        What goes wrong with a stream is told to who owns it, by its methods; the others go on.

        Returns:
            how many streams had something to recognise; 0: there is nothing to do at present.
        """
        with self._stepping, torch.inference_mode():
            self.release_closed()
            with self._registering:
                streams = list(self._streams)
            found = (stream.take(round(STEP_SECONDS * self.sample_rate)) for stream in streams)
            turns = [turn for turn in found if turn is not None]
            ready = [turn for turn in turns if _keeps_adapter(turn.stream)]
            for first in range(0, len(ready), self.batch_size):
                self._run(ready[first : first + self.batch_size])
            return len(turns)

    def release_closed(self) -> None:
        """Give the bank back what closed streams held."""
        while self._closed:
            lease = self._closed.popleft()
            if lease is not None:
                lease.release()

    def _run(self, turns: Sequence[Turn]) -> None:
        try:
            self._compute(turns)
        except Exception as error:  # of one stream, or of all: each by itself shows which
            if len(turns) == 1:
                turns[0].stream.fail(error)
            else:
                for turn in turns:
                    self._run([turn])

    def _compute(self, turns: Sequence[Turn]) -> None:
        streams = [turn.stream for turn in turns]
        is_last = [turn.is_last for turn in turns]
        features, frames, pending = step_features(
            self.model.preprocessor, [stream.pending for stream in streams], [turn.samples for turn in turns], is_last
        )
        state = torch.cat([stream.state for stream in streams])
        leases = [stream.lease for stream in streams]
        residents = [None if lease is None else lease.resident for lease in leases]
        with nullcontext() if self.bank is None else self.bank.route_held(residents):
            encoded, counts, state = self.model.encoder.step(
                features.to(state), frames, state, torch.tensor(is_last, device=state.device)
            )
            log_probs = self.model.decoder(encoder_output=encoded).float().cpu().numpy()
        for stream, output, count, samples, row, last in zip(
            streams, log_probs, counts.tolist(), pending, state, is_last
        ):
            _give(stream, output[:count], samples, row.clone().unsqueeze(0), last)


def check_streams(model: EncDecCTCModel) -> None:
    """Refuse a model that cannot recognise speech before its end.

    Raises:
        InputError: says what it is, and which recipe makes one that can.
    """
    if not isinstance(model, EncDecCTCModel) or not isinstance(model.encoder, DeepSpeech2Encoder):
        what = type(getattr(model, "encoder", model)).__name__
        raise InputError(f"a {what} cannot be streamed here: expected a CTC model with a DeepSpeech2Encoder")
    if model.encoder.is_bidirectional:
        raise InputError(f"the model is bidirectional, so it needs the end of an utterance first: {RECIPE}")
    if not isinstance(model.preprocessor, StreamingMelPreprocessor):
        raise InputError(
            f"the model's {type(model.preprocessor).__name__} normalises by the whole utterance, which a stream does "
            f"not have: {RECIPE}"
        )


def _keeps_adapter(stream: Stream) -> bool:
    try:
        if stream.lease is not None:
            stream.lease.check()
    except NemoDs2Error as error:
        stream.fail(error)
        return False
    return True


def _give(stream: Stream, log_probs: np.ndarray, pending: PendingSamples, state: torch.Tensor, is_last: bool) -> None:
    """What was computed to one stream; what is wrong with it, or with its decoder, is its own affair."""
    try:
        if not np.isfinite(log_probs).all():
            raise StreamError("the stream failed, open another one: the model's output for it is not finite")
        stream.accept(log_probs, pending, state, is_last)
    except Exception as error:
        stream.fail(error)
