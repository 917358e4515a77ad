"""Personal words, row by row."""

from pathlib import Path

import pytest
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.decoding.search import SearchSettings
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.recognition.transcribe import transcribe
from nemo_ds2_adapters.store.store import AdapterStore


def test_every_row_with_its_words(talkative: EncDecCTCModel, paths: list[str], tmp_path: Path) -> None:
    """Rows of a batch get what each gets alone; words of the store are those of its user."""
    store = AdapterStore(tmp_path / "store")
    for user, name in (("ann", "first_0"), ("bob", "own_head_0")):
        store.put(user, talkative, name)
    settings = SearchSettings(phrase_bonus=12.0)
    lists = [["qxq", "zyz"], [], ["jjj vwv"], ["qxq"]]
    users = ["ann", None, "bob", "ann"]
    plain = transcribe(talkative, paths, users, store, progress=False)
    found = transcribe(talkative, paths, users, store, words=lists, search=settings, progress=False)
    for number, path in enumerate(paths):
        alone = transcribe(
            talkative, path, users[number : number + 1], store, words=lists[number : number + 1], search=settings
        )
        assert found[number : number + 1] == alone
    assert found[1] == plain[1]
    assert found != plain
    store.put_words("ann", lists[0])
    stored = transcribe(talkative, paths, users, store, search=settings, progress=False)
    assert stored[1:3] == plain[1:3]
    assert stored[0] == found[0]
    assert transcribe(talkative, paths, users, store, words=[()] * 4, search=settings, progress=False) == plain


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([["naïve"]], "word 'naïve': the model cannot write 'ï'"),
        ([[""]], "word '': is empty"),
        ([["x" * 101]], "has 101 characters, at most 100"),
        ([[f"word {i}" for i in range(1001)]], "1001 words: at most 1000"),
        ([[], []], "2 lists of words for 1 utterances"),
        (["siobhan"], "expected a list of words"),
    ],
)
def test_words_that_cannot_be_used(
    talkative: EncDecCTCModel, paths: list[str], words: list[list[str]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        transcribe(talkative, paths[0], words=words, progress=False)


def test_one_person_s_bad_word_leaves_the_others_alone(talkative: EncDecCTCModel, paths: list[str]) -> None:
    errors: dict[int, str] = {}
    found = transcribe(talkative, paths, words=[["ok"], ["né"], [], []], progress=False, on_error=errors.__setitem__)
    assert [text is None for text in found] == [False, True, False, False]
    assert errors == {1: pytest.approx(errors[1])} and "né" in errors[1]
