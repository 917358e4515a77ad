"""A bank keeps the adapters of some users at hand and takes the others from a store."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.attach import add_adapter, attach
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.errors import AdapterFileError, BaseMismatchError, InputError, UnknownUserError
from nemo_ds2_adapters.modules.routing import Routing, active_routing, encoder_point
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.store.store import AdapterStore

POINT = encoder_point(0)
Put = Callable[..., None]


@pytest.fixture
def model(make_model) -> EncDecCTCModel:
    return make_model(encoder={"n_layers": 1, "d_model": 2})


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store")


@pytest.fixture
def make(make_model) -> Callable[..., Adapter]:
    """Builder of adapters whose weights all have one value; of one or two hidden layers."""

    def build(value: float, layers: int = 1) -> Adapter:
        other = make_model(encoder={"n_layers": 1, "d_model": 2})
        cfg = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [2] * layers, "layers": "first"}
        add_adapter(other, "some", cfg)
        adapter = attached_adapter(other, "some")
        for state in adapter.weights.values():
            for weight in state.values():
                weight.fill_(value)
        return adapter

    return build


@pytest.fixture
def put(make, store: AdapterStore) -> Put:
    """Stores such an adapter."""

    def store_it(user: str, value: float, layers: int = 1, **info: str) -> None:
        adapter = make(value, layers)
        store.put(user, replace(adapter, info=replace(adapter.info, **info)))

    return store_it


def routed_value(routing: Routing, row: int) -> float:
    """The value of all weights that a row is served with, 0 for the base."""
    for part in routing.parts:
        assert isinstance(part.rows, slice)
        if part.rows.start <= row < part.rows.stop:
            (value,) = {weight.unique().item() for weight in part.weights[POINT].values()}
            return value
    return 0.0


@contextmanager
def routing_of(bank: AdapterBank, model: EncDecCTCModel, *users: str | None) -> Iterator[Routing]:
    with bank.route(users):
        routing = active_routing(model.encoder, len(users))
        assert routing is not None
        yield routing


def values(bank: AdapterBank, model: EncDecCTCModel, *users: str | None) -> list[float]:
    with routing_of(bank, model, *users) as routing:
        return [routed_value(routing, row) for row in range(len(users))]


def test_least_recently_used_leaves(model, store, put) -> None:
    for number in range(1, 5):
        put(f"user{number}", float(number))
    bank = AdapterBank(model, store, capacity=3)
    assert values(bank, model, "user1", None, "user2", "user1") == [1, 0, 2, 1]
    assert values(bank, model, "user3") == [3]
    assert values(bank, model, "user1") == [1]  # so user2 was not asked for longest
    assert values(bank, model, "user4", "user1") == [4, 1]
    found = bank.statistics
    assert (found.requests, found.hits, found.loads, found.evictions, found.resident) == (6, 2, 4, 1, 3)
    assert found.hit_rate == pytest.approx(1 / 3) and found.load_seconds > 0
    assert values(bank, model, "user3") == [3] and bank.statistics.loads == 4
    assert values(bank, model, "user2") == [2] and bank.statistics.loads == 5


def test_pinned_users_stay(model, store, put) -> None:
    for number in range(1, 5):
        put(f"user{number}", float(number))
    bank = AdapterBank(model, store, capacity=2, wait_seconds=0.01)
    bank.pin("user1")
    for number in (2, 3, 4):
        assert values(bank, model, f"user{number}") == [number]
    assert values(bank, model, "user1") == [1] and bank.statistics.loads == 4
    with pytest.raises(InputError, match="3 pinned users do not fit: capacity=2"):
        bank.pin("user2", "user3")
    with pytest.raises(InputError, match="no room for 2 users within 0.01 s"):
        values(bank, model, "user2", "user3")
    bank.unpin("user1")
    assert values(bank, model, "user2", "user3") == [2, 3]


def test_several_architectures(model, store, put) -> None:
    put("one", 1.0)
    put("two", 2.0, layers=2)
    put("three", 3.0)
    bank = AdapterBank(model, store, capacity=2)
    assert values(bank, model, "two", "one", None, "two") == [2, 1, 0, 2]
    assert values(bank, model, "three", "two") == [3, 2]
    assert values(bank, model, "one", "three") == [1, 3]


def test_changes_in_the_store(model, store, put) -> None:
    put("ann", 1.0)
    bank = AdapterBank(model, store, capacity=2, check_seconds=0.0)
    slow = AdapterBank(model, store, capacity=2, check_seconds=3600.0)
    assert values(bank, model, "ann") == values(slow, model, "ann") == [1]
    with routing_of(bank, model, "ann") as running:
        put("ann", 2.0, layers=2)
        assert values(bank, model, "ann") == [2]
        store.rollback("ann")
        put("bob", 5.0)
        assert values(bank, model, "ann") == [1]
        assert routed_value(running, 0) == 1
    assert values(slow, model, "ann") == [1] and slow.statistics.loads == 1
    store.erase("ann")
    with pytest.raises(UnknownUserError, match="no adapter of user 'ann'"):
        values(bank, model, "ann")
    assert bank.statistics.resident == 0


def test_a_running_batch_keeps_its_slots(model, store, put) -> None:
    for number in range(1, 4):
        put(f"user{number}", float(number))
    bank = AdapterBank(model, store, capacity=2)
    with ThreadPoolExecutor() as pool:
        with routing_of(bank, model, "user1") as running:
            assert [values(bank, model, f"user{number}") for number in (2, 3, 2)] == [[2], [3], [2]]
            waiting = pool.submit(values, bank, model, "user2", "user3")
            time.sleep(0.05)
            assert not waiting.done() and routed_value(running, 0) == 1
        assert waiting.result() == [2, 3]


def test_loaded_once(model, store, put, monkeypatch) -> None:
    put("ann", 1.0)
    read, gate = store.read, threading.Barrier(8)

    def slow_read(user: str) -> object:
        time.sleep(0.1)
        return read(user)

    monkeypatch.setattr(store, "read", slow_read)
    bank = AdapterBank(model, store, capacity=2)

    def ask(_: int) -> list[float]:
        gate.wait()
        return values(bank, model, "ann")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [[1.0]] * 8
    assert bank.statistics.loads == 1


def test_what_cannot_be_loaded(model, store, put) -> None:
    put("ann", 1.0)
    put("stranger", 2.0, fingerprint="0" * 64)
    bank = AdapterBank(model, store, capacity=2)
    for users, error, message in [
        (["ann", "nobody"], UnknownUserError, "no adapter of user 'nobody'"),
        (["stranger"], BaseMismatchError, "'stranger': the adapter was made for base 000000000000"),
        (["a", "b", "c"], InputError, "3 users in one batch, but capacity=2"),
    ]:
        for _ in range(3):  # and leaves nothing behind that could run out
            with pytest.raises(error, match=message):
                values(bank, model, *users)
    put("ann", 2.0)
    for path in Path(str(store._shelf.folder)).rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(AdapterFileError, match="damaged"):
        values(AdapterBank(model, store), model, "ann")
    with pytest.raises(InputError, match="capacity=0"):
        AdapterBank(model, store, capacity=0)


def test_threads_that_fight_for_slots(model, store, put) -> None:
    for number in range(1, 13):
        put(f"user{number}", float(number), layers=1 + number % 2)
    bank = AdapterBank(model, store, capacity=4, check_seconds=0.0)

    def ask(seed: int) -> None:
        chance = torch.Generator().manual_seed(seed)
        for _ in range(40):
            numbers = torch.randint(0, 13, (3,), generator=chance).tolist()
            users = [f"user{number}" if number else None for number in numbers]
            with routing_of(bank, model, *users) as routing:
                time.sleep(0.0005)
                assert [routed_value(routing, row) for row in range(3)] == numbers

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert bank.statistics.resident <= 4 and bank.statistics.evictions > 0


def test_loaded_in_inference_mode(model, store, put) -> None:
    put("ann", 1.0)
    put("bob", 2.0)
    bank = AdapterBank(model, store, capacity=1)
    with torch.inference_mode():
        assert values(bank, model, "ann") == [1]
    assert values(bank, model, "bob") == [2]


def test_attached_adapters_that_train_on(model) -> None:
    cfg = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [2], "layers": "first"}
    add_adapter(model, "ann", {**cfg, "enabled": False})
    bank = AdapterBank(model, check_seconds=0.0)
    for value in (1.0, 2.0):
        with torch.no_grad():
            for parameter in model.encoder.adapter_points.parameters():
                parameter.fill_(value)
        assert values(bank, model, "ann") == [value]


def test_who_has_no_adapter_gets_the_default(model, store, put, make) -> None:
    put("ann", 1.0)
    put("bob", 2.0)
    for layers in (1, 2):  # of the users' architecture, and of one of its own
        bank = AdapterBank(model, store, default=make(9.0, layers), capacity=2, check_seconds=0.0)
        assert values(bank, model, "eve", "ann", None, "eve", "bob", "adam") == [9, 1, 0, 9, 2, 9]
        found = bank.statistics
        assert (found.requests, found.loads, found.defaults, found.resident) == (2, 2, 2, 2)
        bank.pin("eve", "ann")  # who is pinned stays so, whenever they get an adapter
        assert values(bank, model, "eve") == [9]
        put("eve", 3.0)
        assert values(bank, model, "eve", "ann") == [3, 1]
        store.erase("eve")
        assert values(bank, model, "eve", "bob") == [9, 2]  # an erased user is one without an adapter
    with pytest.raises(UnknownUserError):
        values(AdapterBank(model, store), model, "eve")


def test_who_is_erased_while_loading_gets_the_default(model, store, put, make, monkeypatch) -> None:
    put("ann", 1.0)
    bank = AdapterBank(model, store, default=make(9.0), capacity=1)
    read = store.read

    def too_late(user: str) -> object:
        store.erase(user)
        return read(user)

    monkeypatch.setattr(store, "read", too_late)
    assert values(bank, model, "ann") == [9]


def test_a_default_that_cannot_be(model, store, make) -> None:
    adapter = make(1.0)
    with pytest.raises(BaseMismatchError, match="the default: the adapter was made for base 000000000000"):
        AdapterBank(model, store, replace(adapter, info=replace(adapter.info, fingerprint="0" * 64)))
    with pytest.raises(AdapterFileError, match="the default: does not say for which base"):
        AdapterBank(model, store, replace(adapter, info=None))
    bank = AdapterBank(model, default=adapter)  # without a store, for those who have none attached
    with bank.route(["nobody", "not a name: \u00e9", None]):
        pass
    assert bank.statistics.defaults == 2


def test_a_default_that_attach_would_refuse(model, store, make) -> None:
    adapter = make(1.0)
    integers = {point: {key: w.long() for key, w in state.items()} for point, state in adapter.weights.items()}
    elsewhere = replace(adapter, config={**adapter.config, "layers": [0]})  # but the weights are for the first point
    for wrong, message in (
        (replace(adapter, weights=integers), "is torch.int64"),
        (
            elsewhere,
            r"sits in \['encoder.adapter_points.0'\], by its config it belongs in \['encoder.adapter_points.1'",
        ),
        (replace(adapter, module="encoder+decoder"), r"belongs in \['encoder.adapter_points.0', 'decoder'\]"),
        (replace(adapter, config={**adapter.config, "layers": [3]}), "expected layer indices from 0 to 0"),
    ):
        with pytest.raises(AdapterFileError):
            attach(model, wrong)
        with pytest.raises(AdapterFileError, match="the default: .*" + message):
            AdapterBank(model, store, wrong)
