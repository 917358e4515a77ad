"""What a model recognises in utterances, beside what was said: with the adapters it has enabled, or per user."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from nemo.collections.asr.models import EncDecCTCModel
from torch import Tensor

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.checks import check_whole
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.decoding.decoder import Decoder
from nemo_ds2_adapters.decoding.search import DEFAULT, Search, SearchSettings
from nemo_ds2_adapters.evaluation.errors import Score, composed, score
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.recognition.batches import Failures, Users, run_batches
from nemo_ds2_adapters.recognition.serving import bank_of, on_device, serving
from nemo_ds2_adapters.recognition.users import words_of
from nemo_ds2_adapters.store.store import AdapterStore

NO_ERRORS = Score()


@dataclass(frozen=True)
class Recognised:
    """An utterance, what was recognised in it, and the errors.

    Args:
        utterance: with the reference.
        hypothesis: with the user's adapter, or with what the model has enabled.
        score: of that.
        user: whose adapter; None where the model was taken as it is.
        base_hypothesis: without an adapter, if there is a user.
        base_score: of that.
    """

    utterance: Utterance
    hypothesis: str
    score: Score
    user: str | None = None
    base_hypothesis: str = ""
    base_score: Score = NO_ERRORS

    def line(self) -> dict[str, Any]:
        """For a file with a line per utterance."""
        about = {
            "audio_filepath": str(self.utterance.audio),
            "duration": self.utterance.duration,
            "reference": composed(self.utterance.text),
        }
        if self.user is None:
            return {**about, "hypothesis": self.hypothesis, "wer": self.score.wer, "cer": self.score.cer}
        return {
            "user": self.user,
            **about,
            "base_hypothesis": self.base_hypothesis,
            "adapted_hypothesis": self.hypothesis,
            "words": self.score.words,
            "base_word_errors": self.base_score.word_errors,
            "adapted_word_errors": self.score.word_errors,
            "characters": self.score.characters,
            "base_character_errors": self.base_score.character_errors,
            "adapted_character_errors": self.score.character_errors,
        }


def recognise(
    model: EncDecCTCModel,
    utterances: Sequence[Utterance],
    users: Sequence[str] | None = None,
    store: AdapterStore | AdapterBank | None = None,
    batch_size: int = 16,
    progress: bool = True,
    precision: torch.dtype | None = None,
    default: Adapter | None = None,
    words: Sequence[Sequence[str]] | None = None,
    search: SearchSettings = DEFAULT,
) -> list[Recognised]:
    """Recognise every utterance, and count the errors, in the order of the utterances.

    The model is left in the mode, and with the adapters enabled, in which it was found.

    Args:
        model: a NeMo CTC model; for adapters per user, a DeepSpeech2.
        utterances: transcribed, in any order; each is run as a whole.
        users: whose each utterance is; it is recognised by the base and with the user's adapter. None: by the model
            as it is, with the adapters that are enabled.
        store: the users' adapters, or a bank of them; None for those attached to the model.
        batch_size: utterances per batch.
        progress: show a progress bar.
        precision: of mixed-precision arithmetic (`torch.autocast`), None for none.
        default: what people get who have no adapter; None refuses them.
        words: for each utterance, personal words; None takes those that the store has of its user. The base is given
            none where there are users.
        search: a language model, for the base too, and how much it and the words count.
    """
    check_whole("batch_size", batch_size, 1)
    decoder, searching = Decoder(model), Search(model, search)
    bank = None if users is None else bank_of(model, store, batch_size, default)
    numbered_users: Users | None = None if users is None else dict(enumerate(users))

    def run(signals: np.ndarray, lengths: np.ndarray, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        samples, counts = on_device(model, signals, lengths)
        with torch.autocast(samples.device.type, dtype=precision, enabled=precision is not None):
            if users is None or bank is None:
                log_probs, frames, _ = model(input_signal=samples, input_signal_length=counts)
            else:
                base, personal, frames = base_and_personal(model, bank, samples, counts, [users[n] for n in numbers])
                log_probs = torch.cat([base, personal], dim=2)
        return log_probs.float().cpu().numpy(), frames.cpu().numpy()

    words_by_number = words_of(words, len(utterances), numbered_users, None if bank is None else bank.words)
    for number in range(len(utterances)):
        searching.check(words_by_number(number))

    def decoded(number: int, variants: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The base has no words, unless it is all there is."""
        lists = [words_by_number(number)] if users is None else [(), words_by_number(number)]
        return [searching.found(log_probs, listed) for log_probs, listed in zip(variants, lists)]

    texts: dict[int, list[str]] = {}
    numbered, sample_rate = dict(enumerate(utterances)), int(model.cfg.sample_rate)
    with serving(model, routed=users is not None):
        for found in run_batches(sample_rate, run, numbered, decoder.frame_seconds, batch_size, Failures(), progress):
            split = {n: np.split(output, 1 if users is None else 2, axis=1) for n, output in found.items()}
            variants = zip(*(decoded(n, outputs) for n, outputs in split.items()))
            hypotheses = zip(*(decoder(variant) for variant in variants))
            texts |= {n: [composed(one.text) for one in pair] for n, pair in zip(found, hypotheses)}
    results = []
    for number, utterance in enumerate(utterances):
        *_, hypothesis = texts[number]
        result = Recognised(utterance, hypothesis, score(hypothesis, utterance.text))
        if users is not None:
            base, _ = texts[number]
            result = replace(result, user=users[number], base_hypothesis=base, base_score=score(base, utterance.text))
        results.append(result)
    return results


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
