"""Stores on disk and on S3, and adapters that differ in one number."""

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE
from urllib.request import Request, urlopen
from uuid import uuid4

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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of an S3 server on loopback, a process of its own."""
    python = Path(sys.prefix, "s3", "bin", "python")
    if not python.exists():
        pytest.skip("there is no S3 server: make test installs it, see the Makefile")
    server = subprocess.Popen(
        [python, Path(__file__).with_name("s3_server.py")], stdout=PIPE, stderr=DEVNULL, text=True
    )
    try:
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place for a store in a bucket of its own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    bucket = uuid4().hex
    urlopen(Request(f"{s3_server}/{bucket}", method="PUT")).close()
    return f"s3://{bucket}/people/adapters"


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store")
