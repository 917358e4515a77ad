"""A stream keeps its adapter: new versions, lack of room and erasure while it runs."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nemo_ds2_adapters import (
    AdapterBank,
    AdapterStore,
    InputError,
    Recogniser,
    StoreAccessError,
    UnknownUserError,
    delete_adapter,
)
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.attached import attached_adapter


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store")


@pytest.fixture
def adapters(model, people) -> list[Adapter]:
    return [attached_adapter(model, name) for name in people]


@pytest.fixture
def said(whole, speech, people) -> Callable[[int | None], str]:
    """What a recording is with the adapter of that number."""
    return lambda number: whole(speech(2.0), None if number is None else people[number])


def begin(recogniser: Recogniser, user: str, recording: torch.Tensor):
    """A stream that has heard the first half."""
    stream = recogniser.open(user)
    stream.feed(recording[: len(recording) // 2])
    while recogniser.step():
        pass
    return stream


def end(stream, recording: torch.Tensor) -> str:
    stream.feed(recording[len(recording) // 2 :])
    return stream.finish().text


def test_new_version(model, store, adapters, speech, said) -> None:
    store.put("ann", adapters[0])
    recogniser = Recogniser(model, AdapterBank(model, store, check_seconds=0.0), pause_seconds=float("inf"))
    old = begin(recogniser, "ann", speech(2.0))
    store.put("ann", adapters[1])
    new = begin(recogniser, "ann", speech(2.0))
    assert (end(old, speech(2.0)), end(new, speech(2.0))) == (said(0), said(1))
    assert said(0) != said(1)


def test_no_room(model, store, adapters, speech, said) -> None:
    for number, user in enumerate(("ann", "bob", "cleo")):
        store.put(user, adapters[number])
    bank = AdapterBank(model, store, capacity=2, wait_seconds=0.05)
    recogniser = Recogniser(model, bank, pause_seconds=float("inf"))
    first, second = begin(recogniser, "ann", speech(2.0)), begin(recogniser, "bob", speech(2.0))
    with pytest.raises(InputError, match="no room for 1 users"):
        recogniser.open("cleo")
    assert end(first, speech(2.0)) == said(0)
    assert end(begin(recogniser, "cleo", speech(2.0)), speech(2.0)) == said(2)  # in ann's place
    assert end(second, speech(2.0)) == said(1)


def test_erasure(model, store, adapters, speech, said) -> None:
    store.put("ann", adapters[0])
    store.put("bob", adapters[1])
    recogniser = Recogniser(model, AdapterBank(model, store, check_seconds=0.0), pause_seconds=float("inf"))
    erased, other = begin(recogniser, "ann", speech(2.0)), begin(recogniser, "bob", speech(2.0))
    store.erase("ann")
    with pytest.raises(UnknownUserError, match="'ann'"):
        end(erased, speech(2.0))
    assert end(other, speech(2.0)) == said(1)
    assert recogniser.bank.statistics.resident == 1


def test_erasure_with_a_default(model, store, adapters, speech) -> None:
    store.put("ann", adapters[0])
    bank = AdapterBank(model, store, default=adapters[1], check_seconds=0.0)
    recogniser = Recogniser(model, bank, pause_seconds=float("inf"))
    stream = begin(recogniser, "ann", speech(2.0))
    store.erase("ann")
    stream.feed(speech(2.0)[16000:])
    recogniser.step()
    assert stream.lease.resident is bank._default and bank._default.users == 1
    assert stream.finish().text
    assert bank._default.users == 0 and bank.statistics.resident == 0


def test_store_that_cannot_be_asked(model, store, adapters, speech, said, monkeypatch, caplog) -> None:
    def unreachable(_: str) -> None:
        raise StoreAccessError("the network does not answer")

    store.put("ann", adapters[0])
    recogniser = Recogniser(model, AdapterBank(model, store, check_seconds=0.0), pause_seconds=float("inf"))
    stream = begin(recogniser, "ann", speech(2.0))
    monkeypatch.setattr(store, "versions", unreachable)
    with caplog.at_level(logging.WARNING):
        assert end(stream, speech(2.0)) == said(0)
    assert "the network does not answer" in caplog.text


def test_detached_with_a_default(model, people, adapters, speech) -> None:
    recogniser = Recogniser(model, AdapterBank(model, default=adapters[1], check_seconds=0.0))
    stream = begin(recogniser, people[0], speech(2.0))
    delete_adapter(model, people[0])
    assert stream.finish().text
    with recogniser.open("nobody") as other:
        assert other.lease.resident is recogniser.bank._default
