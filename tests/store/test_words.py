"""Personal words beside the adapter."""

import os
from pathlib import Path

import pytest

from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.store.store import AdapterStore

JOHN = "john.doe@example.com"
FILE = "words"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def file_of(root: Path, user_id: str) -> Path:
    return next(root.glob(f"users/*/{user_hash(user_id)}")) / FILE


def test_words_are_kept_and_replaced(store: AdapterStore, root: Path) -> None:
    assert store.words(JOHN) == ()
    assert store.put_words(JOHN, ["Siobhan", " Xochitl \t Ortega", "Siobhan", "Zoe\u0308"]) == (
        *("Siobhan", "Xochitl Ortega"),
        "Zo\u00eb",
    )
    assert AdapterStore(root, create=False).words(JOHN) == ("Siobhan", "Xochitl Ortega", "Zo\u00eb")
    store.put_words(JOHN, ["\ud64d\uae38\ub3d9"])
    assert store.words(JOHN) == ("\ud64d\uae38\ub3d9",)
    assert store.words("anna") == ()
    assert not store.has(JOHN) and list(store.list()) == []
    assert os.stat(file_of(root, JOHN)).st_mode & 0o777 == 0o600
    store.put_words(JOHN, [])
    assert store.words(JOHN) == ()
    assert not list(root.glob("users/*/*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("Siobhan", "expected a list of words"),
        (["ok", ""], "word '': is empty"),
        (["ok", "  \n"], "is empty"),
        (["a\x1b[31m"], "cannot be printed"),
        (["\ud800"], "cannot be printed"),
        (["x" * 101], "has 101 characters, at most 100"),
        ([7], "word 7: expected text"),
        ([str(i) for i in range(1001)], "1001 words: at most 1000"),
    ],
)
def test_what_are_no_words(store: AdapterStore, words, message: str) -> None:
    store.put_words(JOHN, ["before"])
    with pytest.raises(InputError, match=message):
        store.put_words(JOHN, words)
    assert store.words(JOHN) == ("before",)


def test_erase_takes_them_delete_leaves_them(store: AdapterStore, adapter, root: Path) -> None:
    store.put(JOHN, adapter())
    store.put_words(JOHN, ["Siobhan"])
    store.delete(JOHN)
    assert store.words(JOHN) == ("Siobhan",)
    assert store.erase(JOHN)
    assert store.words(JOHN) == ()
    assert not any(user_hash(JOHN) in str(path) for path in root.rglob("*"))


def test_rename_takes_them_along_and_copy_does_not(store: AdapterStore, adapter) -> None:
    store.put(JOHN, adapter())
    store.put_words(JOHN, ["Siobhan"])
    store.copy(JOHN, "copy")
    assert store.words("copy") == ()
    store.put_words("taken", ["Zebra"])
    with pytest.raises(InputError, match="'taken' has words already"):
        store.rename(JOHN, "taken")
    store.rename(JOHN, "new")
    assert (store.words(JOHN), store.words("new"), store.words("taken")) == ((), ("Siobhan",), ("Zebra",))
    assert store.verify().ok


def test_verify_counts_and_checks_them(store: AdapterStore, adapter, root: Path) -> None:
    store.put(JOHN, adapter())
    store.put_words(JOHN, ["Siobhan"])
    store.put_words("anna", ["Zebra"])
    report = store.verify()
    assert (report.users, report.word_lists, report.problems) == (1, 2, [])
    sound = file_of(root, JOHN).read_bytes()
    for harm in (sound[:-3], b"[]", sound.replace(JOHN.encode(), b"eve"), b"\xff", b"[" * 100_000):
        file_of(root, JOHN).write_bytes(harm)
        report = store.verify()
        assert (report.word_lists, len(report.problems)) == (1, 1)
        with pytest.raises(AdapterFileError, match=f"words of user '{JOHN}'"):
            store.words(JOHN)
        assert store.get(JOHN).parameters == adapter().parameters  # the adapter is as it was
    store.put_words(JOHN, ["Siobhan"])
    assert store.verify().ok


def test_a_link_is_not_followed(store: AdapterStore, root: Path, tmp_path: Path) -> None:
    store.put_words(JOHN, ["Siobhan"])
    path = file_of(root, JOHN)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdapterFileError):
        store.words(JOHN)


def test_at_a_url(url: str, adapter) -> None:
    store = AdapterStore(url)
    store.put(JOHN, adapter())
    store.put_words(JOHN, ["Siobhan"])
    assert store.words(JOHN) == ("Siobhan",)
    assert store.verify().word_lists == 1
    store.put_words(JOHN, [])
    assert store.words(JOHN) == ()
    assert store.has(JOHN)
    store.put_words(JOHN, ["Siobhan"])
    store.erase(JOHN)
    assert store.words(JOHN) == ()
