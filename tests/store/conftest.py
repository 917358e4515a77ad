"""A store, and adapters that differ in one number."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.store.store import AdapterStore

AdapterMaker = Callable[..., Adapter]


@pytest.fixture
def value() -> Callable[[Adapter], float]:
    """The number that all weights of an adapter have; fails if they differ, as in a mixture of two versions."""

    def read(adapter: Adapter) -> float:
        numbers = torch.cat([weight.reshape(-1) for state in adapter.weights.values() for weight in state.values()])
        assert (numbers == numbers[0]).all()
        return numbers[0].item()

    return read


@pytest.fixture
def ds2(make_base, mlp) -> EncDecCTCModel:
    """A DeepSpeech2 with the adapters `user_john` and `user_j`."""
    model = make_base(n_layers=1)
    for name in ("user_john", "user_j"):
        add_adapter(model, name, mlp)
    return model


@pytest.fixture(scope="session")
def made() -> dict[str, Adapter]:
    """What is made once for all tests."""
    return {}


@pytest.fixture
def adapter(made: dict[str, Adapter], request: pytest.FixtureRequest) -> AdapterMaker:
    """Maker of adapters of `ds2` whose weights all have one value."""
    if "original" not in made:
        made["original"] = attached_adapter(request.getfixturevalue("ds2"), "user_john")

    def make(number: float = 1.0) -> Adapter:
        result = copy.deepcopy(made["original"])
        for state in result.weights.values():
            for weight in state.values():
                weight.fill_(number)
        return result

    return make


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store")
