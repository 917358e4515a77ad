"""Text in one Unicode form: Korean as syllables (NFC) or as graphemes (NFD)."""

import unicodedata
from typing import Any, Literal, get_args

from nemo.collections.asr.models import ASRModel
from nemo.collections.common.parts.preprocessing.parsers import NAME_TO_PARSER, CharParser

from nemo_ds2_adapters.errors import InputError

Form = Literal["NFC", "NFD"]
FORMS: dict[str, Form] = {form.lower(): form for form in get_args(Form)}  # by the name of their parser


class UnicodeParser(CharParser):
    """NeMo's character parser for transcripts in any Unicode form: brings them to the form of the labels.

    Raises InputError: a label is not in this form, so no transcript could ever have it.
    """

    form: Form

    def __init__(self, labels: list[str], **options: Any) -> None:
        for label in labels:
            if not unicodedata.is_normalized(self.form, label):
                raise InputError(
                    f"labels: {label!r} is not in Unicode form {self.form}, which parser={self.form.lower()} asks for"
                )
        super().__init__(labels, **options)

    def __call__(self, text: str) -> list[int] | None:
        """Transcript -> class numbers; characters that no label has are left out."""
        return super().__call__(unicodedata.normalize(self.form, text))


class NFCParser(UnicodeParser):
    """`parser: nfc` of a data section."""

    form = "NFC"


class NFDParser(UnicodeParser):
    """`parser: nfd` of a data section."""

    form = "NFD"


NAME_TO_PARSER.update(nfc=NFCParser, nfd=NFDParser)


def normalised(text: str, model: ASRModel) -> str:
    """A transcript in the form in which the model's training data are read."""
    form = FORMS.get(str((model.cfg.get("train_ds") or {}).get("parser")))
    return unicodedata.normalize(form, text) if form else text
