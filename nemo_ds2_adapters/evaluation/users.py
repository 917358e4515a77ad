"""Each utterance with its user's adapter and with the base, from one pass through the model."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from nemo.collections.asr.models import EncDecCTCModel
from torch import Tensor

from nemo_ds2_adapters.data.recordings import Recording
from nemo_ds2_adapters.evaluation.error_counts import character_errors, composed, word_errors
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.recognition.batches import Failures, run_recordings, serving
from nemo_ds2_adapters.recognition.decoding import Decoder
from nemo_ds2_adapters.recognition.windows import Window


@dataclass(frozen=True)
class PairedScore:
    """One utterance, transcribed by the base and with its user's adapter. Errors are edit distances."""

    user: str
    audio_filepath: str
    duration: float  # seconds
    reference: str
    base_hypothesis: str
    adapted_hypothesis: str
    words: int  # of the reference
    base_word_errors: int
    adapted_word_errors: int
    characters: int  # of the reference
    base_character_errors: int
    adapted_character_errors: int


def score_users(
    model: EncDecCTCModel,
    bank: AdapterBank,
    recordings: Sequence[Recording],
    users: Sequence[str],
    references: Sequence[str],
    batch_size: int = 16,
    progress: bool = True,
    autocast: Any = None,
) -> list[PairedScore]:
    """Transcribe every recording twice, and count the errors of both.

    The model is left in the mode, and with the adapters enabled, in which it was found.

    Args:
        model: a DeepSpeech2.
        bank: of its users' adapters, with room for `batch_size` users.
        recordings: in any order; each is run as a whole.
        users: whose each recording is.
        references: what each person said.
        batch_size: utterances per batch.
        progress: show a progress bar.
        autocast: context manager in which the model computes, made anew for each batch; None for none.

    Returns:
        scores in the order of the recordings.

    Raises:
        InputError: a recording cannot be read, or a user has no adapter.
        AdapterFileError: an adapter cannot be used.
    """
    decoder = Decoder(model)
    numbered = dict(enumerate(recordings))

    def run(signals: Tensor, lengths: Tensor, numbers: list[int]) -> tuple[Tensor, Tensor]:
        with nullcontext() if autocast is None else autocast():
            base, personal, frames = base_and_personal(model, bank, signals, lengths, [users[n] for n in numbers])
        return torch.stack([base, personal], dim=2).float(), frames

    scores: dict[int, PairedScore] = {}
    windows = {number: [Window()] for number in numbered}
    with serving(model, routed=True):
        for outputs in run_recordings(
            model, run, numbered, windows, decoder.frame_seconds, batch_size, Failures(None), progress
        ):
            base, personal = (decoder([output[:, i] for output in outputs.values()]) for i in range(2))
            for number, one, other in zip(outputs, base, personal):
                texts = (references[number], one.text, other.text)
                scores[number] = _score(recordings[number], users[number], *texts)
    return [scores[number] for number in numbered]


def base_and_personal(
    model: EncDecCTCModel, bank: AdapterBank, signals: Tensor, lengths: Tensor, users: Sequence[str | None]
) -> tuple[Tensor, Tensor, Tensor]:
    """Both outputs of a batch. What comes before the first adapter of any row runs once.

    Args:
        model: a DeepSpeech2 in eval mode, with no adapter enabled.
        bank: of its users' adapters.
        signals: `[B, T]` samples.
        lengths: `[B]` samples of each utterance.
        users: whose each row is; None gives the base twice.

    Returns:
        log probabilities of the base and with the users' adapters, both `[B, T', V]`, and `[B]` real frames of them.

    Raises:
        InputError, AdapterFileError: what `AdapterBank.route` raises; the bank is for another model.
    """
    bank.check_model(model)
    encoder, decoder = model.encoder, model.decoder

    def rest(prefix: Tensor, frames: Tensor, point: int) -> Tensor:
        return decoder(encoder_output=encoder.forward_from(prefix, frames, point).transpose(1, 2))

    with bank.route(users) as routing:
        features, feature_lengths = model.preprocessor(input_signal=signals, length=lengths)
        point = routing.first_point(encoder.n_layers)
        prefix, frames = encoder.forward_prefix(features, feature_lengths, point)
        personal = rest(prefix, frames, point)
    return rest(prefix, frames, point), personal, frames


def _score(recording: Recording, user: str, reference: str, base: str, adapted: str) -> PairedScore:
    reference = composed(reference)
    return PairedScore(
        user=user,
        audio_filepath=str(recording.source),
        duration=recording.seconds,
        reference=reference,
        base_hypothesis=composed(base),
        adapted_hypothesis=composed(adapted),
        words=len(reference.split()),
        base_word_errors=word_errors(base, reference),
        adapted_word_errors=word_errors(adapted, reference),
        characters=len(reference),
        base_character_errors=character_errors(base, reference),
        adapted_character_errors=character_errors(adapted, reference),
    )
