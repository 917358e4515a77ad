"""Stores that released versions wrote still work; tests/data holds a small one of each.

`v0_1`: written by commit 5bf4e07. Two users with two versions each in `.pt` files, index entries beside them, of a
model of one layer of 4; a third user was erased.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.store.store import AdapterStore

DATA = Path(__file__).parents[1] / "data" / "v0_1" / "store"
NUMBERS = {"john.doe@example.com": [1, 2], "홍길동": [3, 4]}  # of which all weights of each version are


@pytest.fixture
def old(tmp_path: Path) -> AdapterStore:
    shutil.copytree(DATA, tmp_path / "store")
    return AdapterStore(tmp_path / "store", create=False)


def test_list_and_load(old: AdapterStore, make_base, value) -> None:
    assert {entry.user_id: (entry.version, entry.module, entry.type) for entry in old.entries()} == dict.fromkeys(
        NUMBERS, (2, "", "nemo_ds2_adapters.modules.MLPAdapter")
    )
    for user_id, numbers in NUMBERS.items():
        assert [value(old.get(user_id, v.number)) for v in old.versions(user_id)] == numbers
        assert old.header(user_id).info.metadata == {"user_id": user_id, "hours": numbers[-1] / 4}
        assert old.header(user_id).parameters == old.get(user_id).parameters
        model: EncDecCTCModel = make_base(n_layers=1)
        name = old.load_into(model, user_id, strict_base=False)
        weights = [p for path, p in model.named_parameters() if f".{name}." in path]
        assert weights and all(torch.equal(p, torch.full_like(p, numbers[-1])) for p in weights)
    assert not old.has("eve")


def test_verify(old: AdapterStore, tmp_path: Path) -> None:
    report = old.verify()
    assert (report.users, report.versions, report.problems) == (2, 4, [])
    assert not list((tmp_path / "store").glob("users/**/*.json"))  # an index that nobody reads any more
    assert old.verify().repaired == []


def test_roll_back_and_go_on(old: AdapterStore, tmp_path: Path, adapter, value) -> None:
    user_id = "john.doe@example.com"
    assert old.rollback(user_id).number == 3
    assert value(old.get(user_id)) == 1
    assert (
        json.loads((tmp_path / "store" / "store.json").read_text())["version"] == 2
    )  # the old program asks to update
    old.put(user_id, adapter(7.0))
    assert [value(old.get(user_id, v.number)) for v in old.versions(user_id)] == [1, 2, 1, 7]
    old.copy("홍길동", "copy")
    assert value(old.get("copy")) == 4
    before = old.versions("홍길동")
    old.rename("홍길동", "renamed")
    assert [(v.number, v.stored) for v in old.versions("renamed")] == [(v.number, v.stored) for v in before]
    assert value(old.get("renamed", 1)) == 3 and old.get("renamed").metadata == {"user_id": "renamed", "hours": 1.0}
    assert old.verify().ok
    old.delete(user_id, 1)
    for user in list(old.list()):
        assert old.erase(user)
    assert not any((tmp_path / "store" / "users").glob("*/*"))
