"""Transcripts as a model reads them."""

from collections.abc import Iterable

from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules.unicode_form import normalised


def check_vocabulary(key: str, utterances: Iterable[Utterance], model: ASRModel) -> None:
    """Refuse transcripts with characters that the model cannot write.

    Raises:
        InputError: lists the characters.
    """
    characters = sorted({character for utterance in utterances for character in normalised(utterance.text, model)})
    unknown = [character for character in characters if not _is_known(character, model)]
    if unknown:
        raise InputError(
            f"{key}: transcripts have characters outside the model's vocabulary: {' '.join(map(repr, unknown))}; "
            "normalise the transcripts (the model may know lower case only), or set model.char_labels"
        )


def _is_known(character: str, model: ASRModel) -> bool:
    if not hasattr(model, "tokenizer"):
        return character in model.decoder.vocabulary
    unknown_id = getattr(model.tokenizer, "unk_id", None)
    return character.isspace() or unknown_id not in model.tokenizer.text_to_ids(character)
