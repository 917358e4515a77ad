"""Words and language models as they reach texts: whole utterances, streams, rows of a batch, times and confidence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.decoding.decoder import Decoder
from nemo_ds2_adapters.decoding.kneser_ney import write_language_model
from nemo_ds2_adapters.decoding.phrases import spelled
from nemo_ds2_adapters.decoding.search import BeamDecoder, Search, SearchSettings
from nemo_ds2_adapters.errors import InputError
from tests.conftest import VOCABULARY

BLANK = len(VOCABULARY)


def spoken(text: str, heard: str | None = None, doubt: float = 0.2) -> np.ndarray:
    """`[T, V]`: what was heard, and nearly as probable what was said; two frames a letter, and a blank."""
    rows = []
    for letter, other in zip(text, heard or text, strict=True):
        row = np.full(BLANK + 1, 1e-5)
        row[VOCABULARY.index(letter)] = doubt
        row[VOCABULARY.index(other)] = 1.0
        blank = np.full(BLANK + 1, 1e-5)
        blank[BLANK] = 1.0
        rows += [row, row, blank]
    probabilities = np.array(rows).reshape(-1, BLANK + 1)
    return np.log(probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)


SAID, HEARD = "call siobhan now", "call shovhan now"


def test_a_word_is_found_with_its_times_and_confidence(model: EncDecCTCModel) -> None:
    decoder, search = Decoder(model, timestamps=True, confidence=True), Search(model)
    log_probs = spoken(SAID, HEARD)
    assert decoder([search.found(log_probs)])[0].text == HEARD
    heard, found = decoder([log_probs, search.found(log_probs, ["Siobhan"])])
    assert found.text == SAID
    for one, other in zip(heard.timestamp["word"], found.timestamp["word"], strict=True):
        assert (one["start"], one["end"]) == (other["start"], other["end"])
    assert len(found.word_confidence) == 3
    assert found.word_confidence[1] < heard.word_confidence[1]  # as the sound says
    assert found.word_confidence[::2] == pytest.approx(heard.word_confidence[::2], abs=1e-4)


@pytest.mark.parametrize("words", [(), ("zebra",), ("siobha", "iobhan", "siobhan now now")])
def test_other_words_change_nothing(model: EncDecCTCModel, words: tuple[str, ...]) -> None:
    log_probs = spoken(SAID, HEARD)
    assert Decoder(model)([Search(model).found(log_probs, words)])[0].text == HEARD


def test_nothing_to_listen_to_is_the_model_s_own_decoding(model: EncDecCTCModel) -> None:
    log_probs = spoken(SAID, HEARD)
    assert Search(model).found(log_probs) is log_probs


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    pytest.importorskip("flashlight.lib.text.decoder.kenlm", reason="needs flashlight-text (extra [lm])")
    (tmp_path / "text.txt").write_text("the cat sat\nthe cat ran\na dog ran\n")
    write_language_model(tmp_path / "text.txt", tmp_path / "out.arpa", order=2)
    return tmp_path / "out.arpa"


def test_a_language_model_together_with_words(model: EncDecCTCModel, arpa: Path) -> None:
    decoder, log_probs = Decoder(model), spoken("the cat siobhan sat", "tha kat shovhan sat", doubt=0.4)
    for lm, words, expected in (
        (None, (), "tha kat shovhan sat"),
        (arpa, (), "the cat shovhan sat"),
        (None, ("siobhan",), "tha kat siobhan sat"),
        (arpa, ("siobhan",), "the cat siobhan sat"),
    ):
        search = Search(model, SearchSettings(lm=lm, lm_weight=1.0))
        assert decoder([search.found(log_probs, words)])[0].text == expected


def test_streams_find_what_whole_utterances_do(model: EncDecCTCModel, arpa: Path) -> None:
    decoder, search = Decoder(model, timestamps=True, confidence=True), Search(model, SearchSettings(lm=arpa))
    words = ["siobhan", "zebra crossing"]
    whole = spoken("the cat siobhan sat", "tha kat shovhan sat", doubt=0.4)
    expected = decoder([search.found(whole, words)])[0]
    assert "siobhan" in expected.text

    @given(cuts=st.lists(st.integers(0, len(whole)), max_size=8))
    def equal_whole(cuts: list[int]) -> None:
        beam, stable = BeamDecoder(decoder, search, words), ""
        for chunk in np.split(whole, sorted(cuts)):
            beam.accept(chunk)
            assert beam.partial.stable.startswith(stable)
            stable = beam.partial.stable
        found = beam.finish()
        assert found.text.startswith(stable)
        for field in ("text", "timestamp", "word_confidence", "token_confidence", "frame_confidence"):
            assert getattr(found, field) == getattr(expected, field)

    equal_whole()


def test_any_sound_is_read_as_the_beam_wrote_it(model: EncDecCTCModel) -> None:
    """Times are made from an alignment: it must be one of this very text, repeated letters and all."""
    decoder, search = Decoder(model, timestamps=True), Search(model)
    words = ["ab", "bb a", "a"]

    @given(seed=st.integers(0, 10_000), sharpness=st.sampled_from([1.0, 3.0, 8.0]))
    def equal_written(seed: int, sharpness: float) -> None:
        scores = np.random.default_rng(seed).standard_normal((60, BLANK + 1)) * sharpness
        scores[:, 4:BLANK] -= 8.0  # few letters, so that they repeat
        log_probs = torch.from_numpy(scores).log_softmax(-1).float().numpy()
        beam = search.begin(words)
        beam.accept(log_probs)
        labels, _ = beam.best(final=True)
        assert decoder([search.found(log_probs, words)])[0].text == decoder.text(labels)

    equal_written()


def test_a_word_in_the_model_s_letters() -> None:
    jamo = [" ", *"\u1112\u1161\u11ab"]
    assert spelled("\ud55c", jamo, "NFD") == (1, 2, 3)
    assert spelled("Ann Lee", [*" aeln"]) == (1, 4, 4, 0, 3, 2, 2)
    assert spelled("Ann", [*" aAn"]) == (2, 3, 3)
    with pytest.raises(InputError, match="word 'Zoë': the model cannot write 'z' 'ë'"):
        spelled("Zoë", [*" oë"[:2]])
