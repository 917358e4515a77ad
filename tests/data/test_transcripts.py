"""Transcripts, as a model reads them."""

from pathlib import Path

import pytest

from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.data.transcripts import check_vocabulary
from nemo_ds2_adapters.errors import InputError

KEY = "model.train_ds.manifest_filepath"


def test_lists_characters_outside_the_vocabulary(make_model) -> None:
    utterances = [Utterance(Path("a.wav"), text, 1.0) for text in ("yes", "Yes, 5", "é")]
    with pytest.raises(InputError, match="vocabulary: ',' '5' 'Y' 'é'; normalise"):
        check_vocabulary(utterances, KEY, make_model())
    check_vocabulary(utterances[:1], KEY, make_model())
