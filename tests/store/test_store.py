"""What a store does with adapters, one process, a local directory and an object store alike."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.users import adapter_name_for_user
from nemo_ds2_adapters.errors import (
    AdapterFileError,
    AdapterNameError,
    BaseMismatchError,
    InputError,
    UnknownUserError,
    UserIdError,
)
from nemo_ds2_adapters.formats.file import load_adapter, save_adapter
from nemo_ds2_adapters.store.opening import is_store
from nemo_ds2_adapters.store.store import AdapterStore

USERS = ["john.doe@example.com", "홍길동", "a/b:c+d", "..", "123", "null", "e", "x" * 200]


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> AdapterStore:
    """The same tests for both kinds of place."""
    place = tmp_path / "store" if request.param == "local" else request.getfixturevalue("url")
    return AdapterStore(place)


def of_another_base(adapter: Adapter) -> Adapter:
    return replace(adapter, info=replace(adapter.info, fingerprint="0" * 64))


def test_any_user_id(store: AdapterStore, adapter, value) -> None:
    for i, user_id in enumerate(USERS):
        assert not store.has(user_id)
        assert store.put(user_id, adapter(i)).number == 1
    for i, user_id in enumerate(USERS):
        assert store.has(user_id)
        assert value(store.get(user_id)) == i
        assert store.get(user_id).metadata["user_id"] == user_id
        assert store.get(user_id).name == adapter_name_for_user(user_id)
    assert sorted(store.list()) == sorted(USERS)


@pytest.mark.parametrize("user_id", ["", "x" * 201, 5, None, "\ud800"])
def test_what_is_no_user_id(store: AdapterStore, adapter, user_id) -> None:
    for call in (store.has, store.get, store.delete, store.erase, store.versions, lambda u: store.put(u, adapter())):
        with pytest.raises(UserIdError):
            call(user_id)


def test_put_a_model(store: AdapterStore, ds2) -> None:
    with pytest.raises(AdapterNameError, match=r"user 'john': there is no adapter 'user_.*; choose .* with name="):
        store.put("john", ds2)
    store.put("john", ds2, name="user_j", metadata={"hours": 0.5})
    assert store.get("john").metadata == {"hours": 0.5, "user_id": "john"}
    with pytest.raises(InputError, match="metadata"):
        store.put("john", ds2, name="user_j", metadata={"when": datetime.now(UTC)})
    assert len(store.versions("john")) == 1


def test_put_a_file(store: AdapterStore, ds2, adapter, tmp_path: Path) -> None:
    path = tmp_path / "john.pt"
    save_adapter(ds2, "user_john", path, {"language": "en"})
    store.put("john", path)
    assert store.get("john").metadata == {"language": "en", "user_id": "john"}
    save_adapter(ds2, None, path)
    with pytest.raises(InputError, match="holds 2 adapters: choose one with name="):
        store.put("john", path)
    store.put("john", path, name="user_j")
    store.export("john", path)
    with pytest.raises(InputError, match=r"john\.pt: is the adapter of 'john', not of 'eve'"):
        store.put("eve", path)
    path.write_bytes(b"PK")
    with pytest.raises(AdapterFileError, match="john.pt"):
        store.put("john", path)
    with pytest.raises(InputError, match="does not say for which base"):
        store.put("john", replace(adapter(), info=None))


def test_load_into(store: AdapterStore, ds2, make_base, disturb, outputs, tmp_path: Path) -> None:
    disturb(ds2, "user_john")
    store.put("john", ds2, name="user_john")
    ds2.set_enabled_adapters("user_j", enabled=False)
    other = make_base(n_layers=1)
    name = store.load_into(other, "john")
    assert name == adapter_name_for_user("john")
    assert torch.equal(outputs(other), outputs(ds2))
    with pytest.raises(AdapterNameError, match="exists already"):
        store.load_into(other, "john")
    assert store.load_into(other, "john", as_name="again") == "again"
    with pytest.raises(UnknownUserError, match="'eve'"):
        store.load_into(other, "eve")
    stranger = make_base(n_layers=1, seed=1)
    with pytest.raises(BaseMismatchError, match="user 'john'"):
        store.load_into(stranger, "john")
    store.load_into(stranger, "john", strict_base=False)


def test_an_export_is_an_adapter_file(store: AdapterStore, ds2, make_base, tmp_path: Path) -> None:
    store.put("홍길동", ds2, name="user_john")
    store.export("홍길동", tmp_path / "hong.pt")
    assert "__cfg__" in torch.load(tmp_path / "hong.pt", weights_only=True)
    assert load_adapter(make_base(n_layers=1), tmp_path / "hong.pt") == [adapter_name_for_user("홍길동")]


def test_versions_and_rollback(store: AdapterStore, adapter, value) -> None:
    before = datetime.now(UTC)
    for number in (1.0, 2.0, 3.0):
        store.put("a", adapter(number))
    versions = store.versions("a")
    assert [v.number for v in versions] == [1, 2, 3]
    assert before <= versions[0].stored < versions[1].stored <= datetime.now(UTC)
    assert value(store.get("a", version=2)) == 2
    assert value(store.get("a")) == 3
    assert store.rollback("a").number == 4
    assert value(store.get("a")) == 2
    assert store.rollback("a").number == 5  # twice goes back two versions
    assert value(store.get("a")) == 1
    with pytest.raises(UnknownUserError, match="no version before 5, which repeats 1"):
        store.rollback("a")
    store.rollback("a", version=3)
    assert value(store.get("a")) == 3
    with pytest.raises(UnknownUserError, match="no version 9, the last ones are 1, 2, 3, 4, 5, 6"):
        store.rollback("a", version=9)
    with pytest.raises(UnknownUserError, match="no adapter of user 'b'"):
        store.rollback("b")


def test_only_so_many_versions_are_kept(tmp_path: Path, adapter, value) -> None:
    store = AdapterStore(tmp_path / "store", keep_versions=2)
    for number in range(5):
        store.put("a", adapter(number))
        assert value(store.get("a")) == number
    assert [v.number for v in store.versions("a")] == [4, 5]
    with pytest.raises(InputError, match="keep_versions=0"):
        AdapterStore(tmp_path / "store", keep_versions=0)


def test_list(store: AdapterStore, adapter) -> None:
    assert list(store.list()) == []
    for user_id in ("anna", "anton", "bert"):
        store.put(user_id, adapter())
    later = datetime.now(UTC)
    store.put("anton", adapter(2.0))
    assert set(store.list()) == {"anna", "anton", "bert"}
    assert set(store.list(prefix="an")) == {"anna", "anton"}
    assert list(store.list(since=later)) == ["anton"]
    assert list(store.list(since=datetime.now())) == []  # local time
    assert list(store.list(prefix="anna", since=later)) == []
    assert set(store.list(since=later - timedelta(days=1))) == {"anna", "anton", "bert"}
    (entry,) = store.entries("anton")
    stored = store.get("anton")
    assert (entry.version, entry.parameters, entry.type) == (2, stored.parameters, stored.config["_target_"])
    assert entry.fingerprint == stored.info.fingerprint


def test_delete(store: AdapterStore, adapter, value) -> None:
    for number in (1.0, 2.0):
        store.put("a", adapter(number))
    store.delete("a", version=2)
    assert value(store.get("a")) == 1
    with pytest.raises(UnknownUserError, match="no version 2"):
        store.delete("a", version=2)
    store.delete("a")
    assert not store.has("a") and list(store.list()) == [] and store.versions("a") == []
    for call in (store.get, store.delete):
        with pytest.raises(UnknownUserError, match="there is no adapter of user 'a'"):
            call("a")
    assert store.put("a", adapter()).number == 1


def test_stale(store: AdapterStore, adapter, ds2, make_base) -> None:
    store.put("a", adapter())
    store.put("b", of_another_base(adapter()))
    assert list(store.stale(ds2)) == ["b"]
    assert set(store.stale(make_base(n_layers=1, seed=1))) == {"a", "b"}
    store.put("b", adapter())
    assert list(store.stale(ds2)) == []


def test_copy_leaves_the_metadata_behind(store: AdapterStore, adapter, value) -> None:
    store.put("anna", adapter(3.0), metadata={"wer_after": 0.1})
    assert store.copy("anna", "bert").number == 1
    assert value(store.get("bert")) == 3
    assert store.get("bert").metadata == {"user_id": "bert"}
    with pytest.raises(InputError, match="user 'bert' has an adapter already"):
        store.copy("anna", "bert")
    with pytest.raises(UnknownUserError):
        store.copy("eve", "carl")


def test_rename_takes_all_versions_along_with_numbers_and_times(store: AdapterStore, adapter, value) -> None:
    store.put("other", adapter())
    store.put("old", adapter(1.0), metadata={"language": "en"})
    store.put("old", adapter(2.0))
    store.put("old", adapter(3.0))
    store.delete("old", version=2)
    before = store.versions("old")
    with pytest.raises(InputError, match="user 'other' has an adapter already"):
        store.rename("old", "other")
    with pytest.raises(UnknownUserError):
        store.rename("nobody", "new")
    store.rename("old", "new")
    assert set(store.list()) == {"new", "other"}
    assert [value(store.get("new", v.number)) for v in store.versions("new")] == [1, 3]
    assert [(v.number, v.stored) for v in store.versions("new")] == [(v.number, v.stored) for v in before]
    assert list(store.list(since=before[-1].stored + timedelta(microseconds=1))) == []
    assert store.get("new", 1).metadata == {"language": "en", "user_id": "new"}


def test_average(store: AdapterStore, adapter, value) -> None:
    store.put("a", adapter(1.0))
    store.put("b", adapter(4.0))
    store.average(["a", "b"], "mean")
    assert value(store.get("mean")) == 2.5
    store.average(["a", "b"], "nearer", weights=[2, 1])
    assert value(store.get("nearer")) == 2
    store.put("c", of_another_base(adapter()))
    with pytest.raises(InputError, match="were made for different base models"):
        store.average(["a", "c"], "d")
    store.put("c", replace(adapter(), config={**adapter().config, "hidden_dims": [7]}))
    with pytest.raises(InputError, match="differ in hidden_dims"):
        store.average(["a", "c"], "d")
    for names, weights in (([], None), (["a"], [1, 2]), (["a", "b"], [-1, 2])):
        with pytest.raises(InputError):
            store.average(names, "d", weights)
    assert not store.has("d")


def test_damage_is_found_when_reading(tmp_path: Path, adapter, value) -> None:
    store = AdapterStore(tmp_path / "store")
    store.put("a", adapter(1.0))
    store.put("a", adapter(2.0))
    path = max((tmp_path / "store").rglob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-4] ^= 1  # the last bit of a weight: nothing but the checksum sees it
    path.write_bytes(data)
    with pytest.raises(AdapterFileError, match="user 'a', version 2: is damaged, its checksum is .* rollback"):
        store.get("a")
    with pytest.raises(AdapterFileError):
        store.export("a", tmp_path / "a.pt")
    store.rollback("a")
    assert value(store.get("a")) == 1


def test_opening(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no adapter store"):
        AdapterStore(tmp_path / "nowhere", create=False)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").touch()
    with pytest.raises(InputError, match="not an adapter store, and not empty"):
        AdapterStore(tmp_path / "photos")
    with pytest.raises(InputError, match="not an adapter store, and not empty"):
        AdapterStore(tmp_path / "photos" / "1.jpg")
    assert os.listdir(tmp_path / "photos") == ["1.jpg"]
    AdapterStore(f"file://{tmp_path}/new")
    AdapterStore(tmp_path / "new", create=False)
    assert is_store(tmp_path / "new") and not is_store(tmp_path / "photos") and not is_store(tmp_path / "nowhere")
    for text in (
        '{"format": "nemo_ds2_adapters store", "version": 3}',
        '{"format": "nemo_ds2_adapters store", "version": "1"}',
        "[" * 100_000,
        '{"format": "photos", "version": 1}',
        "x",
        "[]",
    ):
        (tmp_path / "new" / "store.json").write_text(text)
        with pytest.raises(InputError, match=r"store\.json|update the package"):
            AdapterStore(tmp_path / "new")
    with pytest.raises(InputError, match="nosuch"):
        AdapterStore("nosuch://bucket")


@pytest.mark.parametrize("text", ["short", "x" * 20_000])  # a header that is read at once, and one that is not
@pytest.mark.parametrize("change", ["put", "erase"])
def test_what_changes_while_it_is_listed(tmp_path: Path, adapter, monkeypatch, text: str, change: str) -> None:
    store = AdapterStore(tmp_path / "store", keep_versions=1)
    store.put("a", adapter(), metadata={"text": text})
    store.put("b", adapter())
    folder = store._shelf.folder
    changes = {"put": [lambda: store.put("a", adapter(2.0))], "erase": [lambda: store.erase("a")]}[change]
    look = folder.starts

    def too_late(files, size):
        found = list(look(files, size)) if text != "short" else None
        while changes:
            changes.pop()()
        yield from look(files, size) if found is None else found

    monkeypatch.setattr(folder, "starts", too_late)
    assert {entry.user_id: entry.version for entry in store.entries()} == {"b": 1} | (
        {"a": 2} if change == "put" else {}
    )
