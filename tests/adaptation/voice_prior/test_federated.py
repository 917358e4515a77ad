"""A prior from adapters alone: their mean, its versions in the store, and rounds of it."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from nemo_ds2_adapters.adaptation.many_speakers import adapt_speakers
from nemo_ds2_adapters.adaptation.settings import PriorSettings, Settings
from nemo_ds2_adapters.adaptation.start import new_adapter
from nemo_ds2_adapters.adaptation.voice_prior.federated import in_rounds, refresh_prior, train_each
from nemo_ds2_adapters.adaptation.voice_prior.prior import describe, read_prior, weights_hash
from nemo_ds2_adapters.adapters.adapter import Adapter, mean, with_metadata
from nemo_ds2_adapters.data.speakers import Speaker
from nemo_ds2_adapters.errors import InputError, UnknownUserError
from nemo_ds2_adapters.store.store import PRIOR, AdapterStore

from .test_prior import MLP, people  # noqa: F401  # a fixture

QUICK = PriorSettings(folds=2, person_epochs=(1, 2))
ONCE = Settings({"name": "adamw", "lr": 0.01}, max_epochs=1)


def shifted(adapter: Adapter, by: float) -> Adapter:
    return replace(adapter, weights={p: {k: v + by for k, v in state.items()} for p, state in adapter.weights.items()})


def same(one: Adapter, other: Adapter) -> bool:
    return all(
        torch.allclose(value, other.weights[point][key])
        for point, state in one.weights.items()
        for key, value in state.items()
    )


@pytest.fixture
def store(make_model, tmp_path: Path) -> AdapterStore:
    """Three people's own adapters, somebody's who keeps the base, and somebody's of another base."""
    store = AdapterStore(tmp_path / "store")
    model = make_model()
    adapter = new_adapter(model, "one", MLP, 0)
    for number, kind in enumerate(("adapted", "adapted", "adapted", "base")):
        metadata = {"kind": kind, "seconds_of_speech": 10.0}
        store.put(f"u{number}", with_metadata(shifted(adapter, 0.1 * number), metadata))
    torch.manual_seed(1)
    other = new_adapter(make_model(encoder={"d_model": 9}), "one", MLP, 0)
    store.put("elsewhere", other)
    return store


def test_the_mean_is_a_version_of_the_stores_prior(store: AdapterStore, make_model, people: list[Speaker]) -> None:  # noqa: F811
    model = make_model()
    users = set(store.list())
    with pytest.raises(UnknownUserError):
        read_prior(str(store).partition("'")[2].rstrip("')"))
    said: list[str] = []
    prior = refresh_prior(model, store, say=said.append)
    assert same(prior.adapter, mean([store.get(f"u{i}") for i in range(3)]))
    assert (prior.speakers, prior.seconds, prior.record, prior.helps_unheard) == (3, 30.0, (), False)
    assert "no speech was at hand" in describe(prior)[0]
    assert set(store.list()) == users
    assert "version 1 of the prior" in said[-1]
    store.put("u0", shifted(store.get("u0"), 1.0))
    newer = refresh_prior(model, store, say=said.append)
    assert [version.number for version in store.versions(PRIOR)] == [1, 2]
    place = str(store).partition("'")[2].rstrip("')")
    assert same(read_prior(place).adapter, newer.adapter)
    assert not same(newer.adapter, prior.adapter)

    before = len(said)
    found = adapt_speakers(model, people[:1], store, ONCE, prior.adapter, prior=read_prior(place), say=said.append)
    assert not found[0].is_expected  # nobody knows what it brings: own recordings decided
    assert store.get(people[0].user_id).metadata["prior"] == weights_hash(newer.adapter)
    assert len(said) == before


def test_the_record_is_of_others(store: AdapterStore, make_model, people: list[Speaker]) -> None:  # noqa: F811
    model = make_model()
    said: list[str] = []
    known = Speaker("u0", people[0].utterances)
    prior = refresh_prior(model, store, [known, *people[1:]], QUICK, say=said.append)
    assert said[0] == "left out, their adapters are in the prior: u0"
    assert all(len(prior.experiences(step)) == 5 for step in prior.recipe)
    assert prior.speakers == 3
    assert read_prior(str(store).partition("'")[2].rstrip("')")).record == prior.record
    with pytest.raises(InputError, match="1 speakers with enough utterances"):
        refresh_prior(model, store, people[:1], QUICK)


def test_too_few_adapters(make_model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 0 people's own adapters for this base"):
        refresh_prior(make_model(), AdapterStore(tmp_path / "empty"))


def test_rounds(make_model) -> None:
    start = new_adapter(make_model(), "one", MLP, 0)

    def train(adapter: Adapter) -> list[Adapter]:
        return [shifted(adapter, 0.0), shifted(adapter, 2.0)]

    assert same(in_rounds(start, train, 3), shifted(start, 3.0))
    assert same(in_rounds(start, train, 2, step=0.5), shifted(start, 1.0))
    assert same(in_rounds(start, train, 2, momentum=0.5), shifted(start, 1.0 + 1.5))


def test_each_where_their_speech_is(make_model, people: list[Speaker]) -> None:  # noqa: F811
    model = make_model().double()
    start = new_adapter(model, "one", MLP, 0)
    together = train_each(model, people[:2], start, ONCE)
    for speaker, adapter in zip(people, together):
        (alone,) = train_each(model, [speaker], start, ONCE)
        assert same(adapter, alone)
        assert not same(adapter, start)
    assert same(in_rounds(start, partial(train_each, model, people[:2], settings=ONCE), 1), mean(together))
