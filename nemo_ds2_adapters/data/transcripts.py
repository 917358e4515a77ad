"""Transcripts as a model reads them."""

from collections.abc import Iterable

from nemo.collections.asr.models import ASRModel
from nemo.collections.common.parts.preprocessing.parsers import make_parser

from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules.unicode_form import normalised


class Tokeniser:
    """From transcripts to output units, as in the base's own training.

    Args:
        model: with characters, read by the parser of its section `train_ds`, or with sub-words.
    """

    def __init__(self, model: ASRModel) -> None:
        section = model.cfg.get("train_ds") or {}
        tokenizer = getattr(model, "tokenizer", None)
        self.pad_id = max(getattr(tokenizer, "pad_id", 0), 0)
        self._start, self._end = (
            [i] if section.get("use_start_end_token", True) and (i := getattr(tokenizer, name, -1)) > 0 else []
            for name in ("bos_id", "eos_id")
        )
        if tokenizer is not None:
            self._parse = tokenizer.text_to_ids
        else:
            self._parse = make_parser(
                list(model.decoder.vocabulary),
                section.get("parser", "en"),
                do_normalize=section.get("normalize_transcripts", False),
            )

    def __call__(self, utterance: Utterance) -> list[int]:
        """Numbers of the units. Raises InputError: the parser has no reading of the transcript."""
        units = self._parse(utterance.text) if utterance.text else []
        if units is None:
            raise InputError(f"{utterance.label}: the transcript {utterance.text!r} cannot be normalised")
        return [*self._start, *units, *self._end]


def check_vocabulary(utterances: Iterable[Utterance], key: str, model: ASRModel) -> None:
    """Refuse transcripts with characters that the model cannot write: InputError, which lists them and names `key`."""
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
