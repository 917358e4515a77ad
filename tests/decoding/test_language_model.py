"""A language model over letters gives whole texts what KenLM gives their words."""

import math
from pathlib import Path

import numpy as np
import pytest

from nemo_ds2_adapters.decoding.beam import PrefixBeam
from nemo_ds2_adapters.decoding.kneser_ney import END, START, UNKNOWN, estimate, write_language_model
from nemo_ds2_adapters.decoding.language_model import LanguageModel, Reader
from nemo_ds2_adapters.errors import InputError
from tests.decoding.test_kneser_ney import probability

pytest.importorskip("flashlight.lib.text.decoder.kenlm", reason="needs flashlight-text (extra [lm])")

LABELS = [" ", *"abcdefghijklmnopqrstuvwxyz", "'"]
SENTENCES = ["the cat sat", "the cat ran", "the dog's cat sat", "a dog sat", "can a cat sing"]
WEIGHT, WORD_BONUS, LETTER_PENALTY = 0.7, 1.5, -0.3


@pytest.fixture(scope="module")
def arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm")
    (folder / "text.txt").write_text("\n".join(SENTENCES))
    write_language_model(folder / "text.txt", folder / "out.arpa", order=3)
    return folder / "out.arpa"


@pytest.fixture
def model(arpa: Path) -> LanguageModel:
    return LanguageModel(arpa, LABELS, WEIGHT, WORD_BONUS, LETTER_PENALTY)


def read(reader: Reader, text: str) -> float:
    state, total = reader.start, 0.0
    for character in text:
        label = LABELS.index(character)
        total += reader.scores[state, label]
        state = reader.advance(state, label)
    return total + reader.final(state)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the",
        "the cat sat",
        "a cat ran",
        "the  cat ",
        "th",
        "the cats sat",
        "zebra",
        "the zebra sat",
        "ca",
        "dogs a",
    ],
)
def test_a_text_gets_what_its_words_get(model: LanguageModel, text: str) -> None:
    ngrams = estimate(SENTENCES, order=3)
    known = {word for sentence in SENTENCES for word in sentence.split()}
    expected, context = 0.0, (START,)
    for word in text.split():
        unit = word if word in known else UNKNOWN
        expected += WEIGHT * math.log(probability(ngrams, context[-2:], unit)) + WORD_BONUS
        expected += LETTER_PENALTY * len(word) if unit == UNKNOWN else 0.0
        context = (*context, unit)
    expected += WEIGHT * math.log(probability(ngrams, context[-2:], END))
    assert read(Reader(model), text) == pytest.approx(expected, abs=1e-4)


def test_a_letter_gets_what_the_best_word_would(model: LanguageModel) -> None:
    reader = Reader(model)
    ngrams = estimate(SENTENCES, order=3)
    words = {word: math.log(probability(ngrams, (), word)) for (word,) in ngrams.probabilities[0] if word.isalpha()}
    total, state = 0.0, reader.start
    for number, letter in enumerate("cat", 1):
        total += reader.scores[state, LABELS.index(letter)]
        state = reader.advance(state, LABELS.index(letter))
        assert total == pytest.approx(WEIGHT * max(v for w, v in words.items() if w.startswith("cat"[:number])))


def test_what_is_forgotten_does_not_matter(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_ds2_adapters.decoding.language_model.MAX_STATES", 10)
    monkeypatch.setattr(PrefixBeam, "KEEP_EVERY", 7)
    scores = np.random.default_rng(0).standard_normal((200, len(LABELS) + 1)) * 3
    log_probs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    found = []
    for _ in range(2):
        beam = PrefixBeam(len(LABELS), [Reader(model)])
        beam.accept(log_probs)
        found.append((beam.best(final=True), beam.final_scores().max()))
        monkeypatch.setattr(PrefixBeam, "KEEP_EVERY", 10**9)  # as if nothing was
    assert found[0] == found[1]


def test_a_file_without_unknown_words_lets_them_be_written(arpa: Path, tmp_path: Path) -> None:
    lines = [line for line in arpa.read_text().splitlines() if UNKNOWN not in line]
    path = tmp_path / "closed.arpa"
    ones = next(line for line in lines if line.startswith("ngram 1="))
    fewer = f"ngram 1={int(ones.partition('=')[2]) - 1}"
    path.write_text("\n".join(fewer if line == ones else line for line in lines) + "\n")
    reader = Reader(LanguageModel(path, LABELS, 1.0, 0.0, 0.0))
    assert -100 < read(reader, "zebra") < read(reader, "cat")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as an ARPA file"),
        ("words", "is no ARPA file"),
        ("\\data\\\nngram 1=1\n\n\\1-grams:\nabc\tdef\n", "cannot be read as an ARPA file"),
        ("\\data\\\nngram 1=3\n\n\\1-grams:\n-1\tcat\n\n\\end\\\n", "KenLM cannot read it"),
        ("\\data\\\nngram 1=1\n\n\\1-grams:\n-1\t猫\n\n\\end\\\n", "the model can write none of its words"),
    ],
)
def test_what_is_no_language_model(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "x.arpa"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        LanguageModel(path, LABELS)
