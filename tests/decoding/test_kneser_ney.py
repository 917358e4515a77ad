"""The language model's numbers: by hand, by its definition, and as KenLM reads them."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ds2_adapters.decoding.kneser_ney import END, START, UNKNOWN, NgramModel, estimate, write_language_model
from nemo_ds2_adapters.errors import InputError

WORDS = ["a", "b", "c", "d"]


def probability(model: NgramModel, context: tuple[str, ...], word: str) -> float:
    """As ARPA says: of the longest n-gram that is there, times the back-off weights of those that are not."""
    gram = (*context, word)
    if gram in model.probabilities[len(gram) - 1]:
        return 10 ** model.probabilities[len(gram) - 1][gram]
    return 10 ** model.backoffs.get(context, 0.0) * probability(model, context[1:], word)


def test_by_hand() -> None:
    """Too short a text to estimate discounts: they are 0.5, 1 and 1.5."""
    model = estimate(["a b", "a c", "b"], order=2)
    # Before a stands one word (<s>), before b two (<s>, a), before c one, before </s> two (b, c): six in all.
    # Discounts leave 0.5 + 1 + 0.5 + 1 = 3 of the six for the uniform distribution over a, b, c, </s>, <unk>.
    share = 3 / 6
    unigrams = {"a": 0.5 / 6, "b": 1 / 6, "c": 0.5 / 6, END: 1 / 6, UNKNOWN: 0.0}
    for word, discounted in unigrams.items():
        assert 10 ** model.probabilities[0][word,] == pytest.approx(discounted + share / 5)
    # a is followed by b and c, once each: 0.5 of 1 is taken from both.
    assert 10 ** model.backoffs["a",] == pytest.approx(0.5)
    assert 10 ** model.probabilities[1]["a", "b"] == pytest.approx(0.5 / 2 + 0.5 * (1 / 6 + share / 5))
    # <s> is followed by a twice and b once: discounts 1 and 0.5 of 3.
    assert 10 ** model.backoffs[START,] == pytest.approx(1.5 / 3)
    assert 10 ** model.probabilities[1][START, "a"] == pytest.approx(1 / 3 + 0.5 * (0.5 / 6 + share / 5))


def test_discounts_of_chen_and_goodman() -> None:
    """Of 5 words that occur once, 3 twice, 2 three times, 1 four times (the end of a sentence aside, more often)."""
    counts = dict(zip("abcdefghijk", [1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4]))
    model = estimate([word for word, count in counts.items() for _ in range(count)], order=1)
    share = 5 / (5 + 2 * 3)
    discounts = 1 - 2 * share * 3 / 5, 2 - 3 * share * 2 / 3, 3 - 4 * share * 1 / 2
    total = 2 * sum(counts.values())
    saved = 5 * discounts[0] + 3 * discounts[1] + 4 * discounts[2]
    for word, count in counts.items():
        expected = (count - discounts[min(count, 3) - 1]) / total + saved / total / 13
        assert 10 ** model.probabilities[0][word,] == pytest.approx(expected)


@given(
    sentences=st.lists(
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=12
    ),
    order=st.integers(1, 4),
    context=st.lists(st.sampled_from([*WORDS, UNKNOWN]), max_size=3),
    starts=st.booleans(),
)
def test_sums_to_one_after_any_words(sentences: list[str], order: int, context: list[str], starts: bool) -> None:
    model = estimate(sentences, order)
    history = ([START] if starts else []) + context
    before = tuple(history[-(order - 1) :]) if order > 1 else ()
    known = [word for (word,) in model.probabilities[0] if word != START]
    assert sum(probability(model, before, word) for word in known) == pytest.approx(1)


def test_kenlm_reads_it(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("flashlight.lib.text.decoder.kenlm", reason="needs flashlight-text (extra [lm])")
    from flashlight.lib.text.dictionary import Dictionary

    text, path = tmp_path / "text.txt", tmp_path / "out.arpa"
    text.write_text("a b c\na b d\n\n b c d d \nc a b\n")
    model = write_language_model(text, path, order=3)
    loaded = kenlm.KenLM(str(path), Dictionary([*WORDS, UNKNOWN]))
    for sentence in ("a b c", "d d d", "b zzz a b", "c a b d"):
        state, context = loaded.start(False), (START,)
        for word in sentence.split():
            known = word if word in WORDS else UNKNOWN
            state, log10 = loaded.score(state, [*WORDS, UNKNOWN].index(known))
            assert log10 == pytest.approx(math.log10(probability(model, context[-2:], known)), abs=1e-5)
            context = (*context, known)
        assert loaded.finish(state)[1] == pytest.approx(math.log10(probability(model, context[-2:], END)), abs=1e-5)


@pytest.mark.parametrize(
    ("content", "order", "message"),
    [
        (b"a b", 0, "order=0: expected 1 to 6"),
        (b"a b", 7, "order=7: expected 1 to 6"),
        (b"\n  \n", 3, "there are no words"),
        (b"a <s> b", 3, "<s> is a mark of the ARPA format"),
        (b"\xff\xfe", 3, "cannot be read as UTF-8 text"),
        (None, 3, "cannot be read as UTF-8 text"),
    ],
)
def test_what_makes_no_model(tmp_path: Path, content: bytes | None, order: int, message: str) -> None:
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    with pytest.raises(InputError, match=message):
        write_language_model(text, tmp_path / "out.arpa", order)
    assert not (tmp_path / "out.arpa").exists()
