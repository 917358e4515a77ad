"""Output units made from the training transcripts."""

import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from nemo.collections.common.tokenizers.sentencepiece_tokenizer import create_spt_model

from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules.unicode_form import Form


def frequent_characters(utterances: Iterable[Utterance], limit: int, form: Form = "NFC") -> list[str]:
    """The most frequent characters of the transcripts, Korean syllables for example, in order of frequency.

    Args:
        utterances: with transcripts.
        limit: how many characters at most.
        form: Unicode form in which they are counted.
    """
    counts = Counter(character for u in utterances for character in unicodedata.normalize(form, u.text))
    return sorted(counts, key=lambda character: (-counts[character], character))[:limit]


def make_tokenizer(folder: str, utterances: Iterable[Utterance], vocab_size: int) -> None:
    """Train SentencePiece (BPE) on the transcripts, for NeMo's `model.tokenizer.dir`; keep what is there already.

    Raises:
        InputError: so few sub-words cannot even spell the transcripts.
    """
    if (Path(folder) / "tokenizer.model").is_file():
        return
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as text:
        text.write("\n".join(utterance.text for utterance in utterances))
        text.flush()
        try:
            create_spt_model(text.name, vocab_size, -1, False, tokenizer_type="bpe", output_dir=folder)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(
                f"tokenizer_vocab_size={vocab_size} does not fit the training transcripts: {reason}"
            ) from error
