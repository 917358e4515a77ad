"""Transcription with one adapter per utterance."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.checks import check_whole
from nemo_ds2_adapters.data.recordings import AudioSource
from nemo_ds2_adapters.decoding.decoder import Decoder
from nemo_ds2_adapters.decoding.search import DEFAULT, Search, SearchSettings
from nemo_ds2_adapters.errors import InputError, NemoDs2Error
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.recognition.batches import (
    Failures,
    OnError,
    run_batches,
    usable_users,
)
from nemo_ds2_adapters.recognition.serving import bank_of, on_device, serving
from nemo_ds2_adapters.recognition.users import asked_for, words_of
from nemo_ds2_adapters.recognition.windows import check_window_seconds
from nemo_ds2_adapters.store.store import AdapterStore


def transcribe(
    model: EncDecCTCModel,
    audio: "AudioSource | Sequence[AudioSource]",
    adapters: Sequence[str | None] | None = None,
    store: AdapterStore | AdapterBank | str | os.PathLike[str] | None = None,
    batch_size: int = 16,
    *,
    default: Adapter | None = None,
    adapter_key: str | None = None,
    words: Sequence[Sequence[str]] | None = None,
    search: SearchSettings = DEFAULT,
    return_hypotheses: bool = False,
    timestamps: bool = False,
    confidence: bool = False,
    max_seconds: float = 40.0,
    overlap_seconds: float = 4.0,
    progress: bool = True,
    on_error: OnError | None = None,
) -> list[Any]:
    """Transcribe recordings of any number of users in mixed batches.

    Batches are made of utterances of similar length. Longer ones than `max_seconds` are cut into overlapping windows,
    whose outputs are joined before decoding. Afterwards the model is in the mode, and has the adapters enabled, in
    which it was found; nobody else may use it meanwhile. A service that forms its own batches uses an `AdapterBank`.

    Args:
        model: a NeMo CTC model; for adapters per utterance, a DeepSpeech2.
        audio: path of a file or a NeMo manifest, array or tensor `[T]` at the model's sample rate, or a list of these
            except manifests; or the lines of a manifest as `read_lines` gives them.
        adapters: for each utterance a user id of the store, without a store the name of an attached adapter, or None
            for the base. If not given, a manifest may say it; otherwise the model is used as it is.
        store: the users' adapters, or a bank of them; None for those attached to the model.
        batch_size: utterances per batch.
        default: what people get who have no adapter; None refuses them.
        adapter_key: field of the manifest that names the adapter; a line without it gets the base. By default
            `adapter`, or with a store or default `speaker` where there is no `adapter`.
        words: for each utterance, names and terms that are likely in it. None takes those that the store has of its
            user, if there is one.
        search: a language model, and how much it and the words count.
        return_hypotheses: NeMo's `Hypothesis` objects instead of text.
        timestamps: hypotheses with `timestamp["word"]`, `["char"]` and `["segment"]`, `start` and `end` in seconds.
        confidence: hypotheses with `word_confidence`, `token_confidence` and `frame_confidence`.
        max_seconds: longest window; inf: nothing is cut.
        overlap_seconds: of neighbouring windows.
        progress: show a progress bar.
        on_error: called with the number of an utterance that cannot be transcribed, and the reason; its result is
            None, and the others go on. Without it, the first such utterance raises.

    Returns:
        texts or hypotheses, in the order of the input.

    Raises:
        InputError: unsuitable settings, `adapters` or `words` of another length, a recording or user that cannot be
            used, or a word that the model cannot write.
        AdapterFileError: an adapter that cannot be used.
    """
    if not isinstance(model, EncDecCTCModel):
        raise InputError(f"a {type(model).__name__} cannot be used: expected a NeMo CTC model")
    check_whole("batch_size", batch_size, 1)
    check_window_seconds(max_seconds, overlap_seconds)
    if isinstance(store, str | os.PathLike):
        store = AdapterStore(store, create=False)
    decoder = Decoder(model, timestamps, confidence)
    searching = Search(model, search)
    failures = Failures(on_error)
    sample_rate = int(model.cfg.sample_rate)
    must_name = store is not None or default is not None
    count, utterances, users = asked_for(audio, sample_rate, adapters, adapter_key, must_name, failures)
    bank = store if isinstance(store, AdapterBank) else None
    if users is not None or bank is not None:
        bank = bank_of(model, store, batch_size, default)

    def run(signals: np.ndarray, lengths: np.ndarray, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        samples, counts = on_device(model, signals, lengths)
        with nullcontext() if bank is None or users is None else bank.route([users[number] for number in numbers]):
            log_probs, frames, _ = model(input_signal=samples, input_signal_length=counts)
        return log_probs.float().cpu().numpy(), frames.cpu().numpy()

    words_by_number = words_of(words, count, users, None if bank is None else bank.words)
    for number in list(utterances):
        try:
            searching.check(words_by_number(number))
        except NemoDs2Error as error:
            failures.add(number, error)
            del utterances[number]
    usable = usable_users(None if bank is None else bank.check_user, users, failures)
    results: list[Any] = [None] * count
    with serving(model, routed=users is not None):
        for outputs in run_batches(
            sample_rate,
            run,
            utterances,
            decoder.frame_seconds,
            batch_size,
            failures,
            progress,
            max_seconds,
            overlap_seconds,
            usable,
        ):
            found = [searching.found(log_probs, words_by_number(number)) for number, log_probs in outputs.items()]
            for number, hypothesis in zip(outputs, decoder(found)):
                results[number] = hypothesis
    if return_hypotheses or timestamps or confidence:
        return results
    return [None if hypothesis is None else hypothesis.text for hypothesis in results]
