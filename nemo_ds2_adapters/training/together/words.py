"""What a model's output says, and how far it is from what was said."""

import unicodedata

from kaldialign import edit_distance
from nemo.collections.asr.models import ASRModel
from torch import Tensor


def texts(model: ASRModel, log_probs: Tensor, lengths: Tensor) -> list[str]:
    """Transcripts of `[B, T, V]`, by the model's own decoding."""
    hypotheses = model.decoding.ctc_decoder_predictions_tensor(log_probs, lengths, return_hypotheses=False)
    return [h if isinstance(h, str) else h.text for h in hypotheses]


def word_errors(hypothesis: str, reference: str) -> int:
    """Words to insert, delete or replace (Levenshtein), in one Unicode form."""
    return edit_distance(_nfc(reference).split(), _nfc(hypothesis).split())["total"]


def character_errors(hypothesis: str, reference: str) -> int:
    """Characters to insert, delete or replace (Levenshtein), in one Unicode form."""
    return edit_distance(list(_nfc(reference)), list(_nfc(hypothesis)))["total"]


def _nfc(text: str) -> str:
    """A model that writes graphemes writes another form than people do."""
    return unicodedata.normalize("NFC", text)
