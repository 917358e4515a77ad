"""A running service with the demo's base and prior, as a person starts it, and synthetic people who use it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from demo.people import write_others

CHECKOUT = Path(__file__).parents[2]
ALL, ANN = "all-users-0123456789", "ann-only-0123456789"  # tokens, for everybody and for one
START_SECONDS, JOB_SECONDS = 180, 300  # on a busy machine

Sentence = tuple[Path, str]


@dataclass
class Person:
    """Somebody with recorded sentences."""

    train: list[Sentence] = field(default_factory=list)
    test: list[Sentence] = field(default_factory=list)


@dataclass
class Served:
    """A service in a process of its own."""

    folder: Path
    options: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None
    url: str = ""

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8")

    def start(self) -> "Served":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "nemo_ds2_adapters.cli", "serve", "--store", str(self.store)]
        command += ["--training-niceness", "0"]  # other tests may run beside this one
        environment = {**os.environ, "DS2_ADAPTERS_TOKENS": "\n".join(self.tokens), "PYTHONPATH": str(CHECKOUT)}
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(port), *self.options], stdout=log, stderr=log, env=environment
            )
        for _ in range(START_SECONDS * 4):
            if self.process.poll() is not None:
                raise AssertionError(f"the service has ended: {self.log}")
            try:
                httpx.get(f"{self.url}/v1/health", timeout=5)
            except httpx.TransportError:
                time.sleep(0.25)
            else:
                return self
        raise AssertionError(f"the service did not start: {self.log}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[Person]:
    """Two synthetic people like those in the prior's population, with some sentences each."""
    folder = tmp_path_factory.mktemp("people")
    write_others(folder, people=2, train=5, test=3, seed=3)
    found: dict[str, Person] = {}
    for split in ("train", "test"):
        for line in (folder / f"{split}.json").read_text("utf-8").splitlines():
            entry = json.loads(line)
            sentences = getattr(found.setdefault(entry["speaker"], Person()), split)
            sentences.append((folder / entry["audio_filepath"], entry["text"]))
    return list(found.values())


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service that most tests share, with tokens."""
    options = ("--requests-per-minute", "100000", "--max-seconds", "50", "--upload-seconds", "3")
    one = Served(tmp_path_factory.mktemp("service"), (*options, "--max-upload-mb", "5"), (ALL, f"{ANN} ann"))
    yield one.start()
    one.stop()


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    """Who may speak for everybody."""
    with served.client(ALL) as one:
        yield one


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts services of a test's own."""
    started = []

    def begin(*options: str, tokens: tuple[str, ...] = ()) -> Served:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Served(folder, options, tokens).start())
        return started[-1]

    yield begin
    for one in started:
        if one.process is not None and one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def path_of(user: str) -> str:
    return f"/v1/users/{quote(user, safe='')}"


def record(client: httpx.Client, user: str, sentences: list[Sentence]) -> None:
    for path, text in sentences:
        answer = client.post(f"{path_of(user)}/recordings", files={"file": path.read_bytes()}, data={"text": text})
        assert answer.status_code == 201, answer.text


def transcribe(client: httpx.Client, path: Path, **fields: str) -> httpx.Response:
    return client.post("/v1/audio/transcriptions", files={"file": path.read_bytes()}, data=fields)


def finished(client: httpx.Client, job: str) -> dict:
    """A job, once it is over."""
    for _ in range(JOB_SECONDS * 4):
        view = client.get(f"/v1/jobs/{job}").json()
        if view["state"] in ("done", "failed", "erased"):
            return view
        time.sleep(0.25)
    raise AssertionError(f"the job does not end: {view}")


def left_of(store: Path) -> list[Path]:
    """What lies in the store beside its own files."""
    return [path for path in (store / "users").rglob("*") if len(path.relative_to(store).parts) > 2]
