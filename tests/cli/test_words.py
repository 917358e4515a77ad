"""`ds2-adapters words` and `lm`."""

import json
from pathlib import Path

import pytest

from nemo_ds2_adapters.store.store import AdapterStore

JOHN = "john.doe@example.com"


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store")


def test_words(run, store: AdapterStore, tmp_path: Path) -> None:
    place = tmp_path / "store"
    assert run("words", place, JOHN) == (0, "", "")
    assert run("words", place, JOHN, "--add", "Siobhan", "--add", "Xochitl Ortega").out == "Siobhan\nXochitl Ortega\n"
    changed = run("words", place, JOHN, "--remove", "Siobhan", "--add", "Zo\u00eb", "--json")
    assert json.loads(changed.out) == {"user_id": JOHN, "words": ["Xochitl Ortega", "Zo\u00eb"]}
    assert store.words(JOHN) == ("Xochitl Ortega", "Zo\u00eb")
    (tmp_path / "names.txt").write_text("Quetzal\n\n  Ann  Lee \n")
    assert run("words", place, JOHN, "--set", tmp_path / "names.txt").out == "Quetzal\nAnn Lee\n"
    assert run("words", place, JOHN).out == "Quetzal\nAnn Lee\n"
    assert "0 problems" in run("verify", place).out
    assert run("words", place, JOHN, "--clear") == (0, "", "")
    assert store.words(JOHN) == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clear", "--add", "a"], "exclude each other"),
        (["--remove", "nobody"], "'nobody' is none of the words"),
        (["--add", "a" * 101], "has 101 characters"),
        (["--set", "nowhere.txt"], "nowhere.txt: cannot be read"),
    ],
)
def test_words_that_are_refused(run, store: AdapterStore, tmp_path: Path, options: list[str], message: str) -> None:
    store.put_words(JOHN, ["before"])
    result = run("words", tmp_path / "store", JOHN, *options)
    assert result.code == 1 and message in result.err and len(result.err.splitlines()) == 1
    assert store.words(JOHN) == ("before",)


def test_lm(run, tmp_path: Path) -> None:
    text, output = tmp_path / "text.txt", tmp_path / "out.arpa"
    text.write_text("a b\na c\nb\n")
    assert run("lm", text, output, "--order", "2").out == f"6 1-grams, 6 2-grams written to {output}\n"
    assert output.read_text().startswith("\\data\\\nngram 1=6\nngram 2=6\n")
    before = text.read_text()
    assert "would overwrite" in run("lm", text, text).err
    assert "expected 1 to 6" in run("lm", text, output, "--order", "9").err
    assert text.read_text() == before
