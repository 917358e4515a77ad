"""A service over Ray with two replicas, as a person starts it, and 32 people with adapters of their own."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import soundfile
import torch
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from benchmarks.processes import titled
from demo.people import write_others
from demo.run import STREAM_BASE_MODEL
from nemo_ds2_adapters import add_adapter, transcribe
from nemo_ds2_adapters.adapters.adapter import with_metadata
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from nemo_ds2_adapters.store.store import AdapterStore
from tests.serving.conftest import CHECKOUT, Served, path_of

pytest.importorskip("ray", reason="the extra [ray] is not installed")

from nemo_ds2_adapters.cluster.serve import application_name

USERS = [f"user {number}" for number in range(32)]
QUEUE, CLIENTS = 8, 4
THINK_SECONDS = 0.05
START_SECONDS = 180  # of a replica, on a busy machine
FRAME = 3200  # bytes of a message
MLP = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "in_features": None, "hidden_dims": [16], "layers": "all"}


@dataclass
class Cluster:
    """The service, and what it must say."""

    served: Served
    files: list[Path]
    texts: dict[tuple[str, Path], str]  # by user and recording, as `transcribe` says

    def replicas(self) -> list[int]:
        """Processes."""
        return titled(f"ray::ServeReplica:{application_name(self.served.store)}")

    def counted(self) -> dict[str, tuple[float, float]]:
        """Requests and hits of the banks, by replica."""
        text = self.ask("GET", "/metrics").text
        counts = [
            dict(re.findall(rf'^ds2_adapters_bank_{name}{{replica="(\w+)"}} (\S+)', text, re.MULTILINE))
            for name in ("requests", "hits")
        ]
        return {replica: (float(counts[0][replica]), float(counts[1][replica])) for replica in counts[0]}

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return httpx.request(method, self.served.url + path, timeout=120, **options)

    def recognise(self, user: str, path: Path) -> httpx.Response:
        files = {"file": path.read_bytes()}
        return self.ask("POST", "/v1/audio/transcriptions", files=files, data={"user": user})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    write_others(folder / "people", people=2, train=1, test=2, seed=3)
    lines = [json.loads(line) for line in (folder / "people" / "test.json").read_text("utf-8").splitlines()]
    files = [folder / "people" / line["audio_filepath"] for line in lines]
    options = ("--cluster", "ray", "--replicas", "2", "--queue-size", str(QUEUE), "--requests-per-minute", "100000")
    served = Served(folder, (str(STREAM_BASE_MODEL), *options))
    store = AdapterStore(served.store)
    model = restore_model(str(STREAM_BASE_MODEL), None).eval()
    add_adapter(model, "own", MLP)
    texts: dict[tuple[str, Path], str] = {}
    for user in USERS:
        put(store, model, user, seed=USERS.index(user))
    for path in files:
        found = transcribe(model, [str(path)] * len(USERS), USERS, store, batch_size=16, progress=False)
        texts |= {(user, path): text for user, text in zip(USERS, map(said, found))}
        assert len({texts[user, path] for user in USERS}) > len(USERS) / 2  # another's adapter would be seen
    yield Cluster(served.start(), files, texts)
    assert served.stop() == 0
    assert "Traceback" not in served.log


def said(found: Any) -> str:
    return found if isinstance(found, str) else found.text


def put(store: AdapterStore, model: Any, user: str, seed: int) -> None:
    """An adapter that changes texts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if ".adapter_layer.own." in path:
                parameter.copy_(0.25 * torch.randn(parameter.shape, generator=generator))
    store.put(user, model, "own")


def test_nobody_gets_a_wrong_text_while_a_replica_dies(cluster: Cluster) -> None:
    """At random, from all at once: what is refused was under way when the replica died; then all is as before."""
    before = cluster.replicas()
    assert len(before) == 2
    answers: list[tuple[float, float, int]] = []
    is_over = False

    def client(seed: int) -> None:
        chance = random.Random(seed)
        while not is_over:
            time.sleep(THINK_SECONDS)
            user, path, begun = chance.choice(USERS), chance.choice(cluster.files), time.monotonic()
            answer = cluster.recognise(user, path)
            answers.append((begun, time.monotonic(), answer.status_code))
            if answer.status_code == 200:
                assert (user, answer.json()["text"]) == (user, cluster.texts[user, path])
                assert answer.headers["x-adapter"] == "own"
            else:
                assert (answer.status_code, answer.json()["code"]) == (503, "busy"), answer.text

    def answered(count: int) -> dict[str, tuple[float, float]]:
        """What the banks have counted when so many more requests have been answered."""
        wanted = len(answers) + count
        while len(answers) < wanted:
            assert not any(future.done() for future in clients), [future.result() for future in clients]
            time.sleep(0.1)
        return cluster.counted()

    def hit_rates() -> dict[str, float]:
        """Of each replica: after as many requests that everybody's adapter should be in memory, of some more."""
        start = answered(4 * len(USERS))
        counts = {replica: np.subtract(now, start[replica]) for replica, now in answered(len(USERS)).items()}
        return {replica: hits / requests for replica, (requests, hits) in counts.items()}

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, seed) for seed in range(CLIENTS)]
        try:
            assert min(hit_rates().values()) > 0.85
            killed = time.monotonic()
            os.kill(before[0], signal.SIGKILL)
            (alone,) = hit_rates().values()
            while len(cluster.counted()) < 2:
                assert time.monotonic() < killed + START_SECONDS, "no replica has taken the place"
                time.sleep(1)
            both = hit_rates()
        finally:
            is_over = True
    assert alone > 0.85
    assert len(both) == 2 and min(both.values()) > 0.85
    refused = [(begun, ended) for begun, ended, status in answers if status != 200]
    assert len(refused) <= CLIENTS and all(begun < killed + 1 and ended > killed for begun, ended in refused)


def test_everybody_has_a_replica(cluster: Cluster) -> None:
    """And few are read twice."""
    before = cluster.counted()
    for user in USERS * 2:
        assert cluster.recognise(user, cluster.files[0]).json()["text"] == cluster.texts[user, cluster.files[0]]
    after = cluster.counted()
    requests, hits = (sum(after[replica][i] - before[replica][i] for replica in after) for i in (0, 1))
    assert requests == 2 * len(USERS) and hits >= requests - len(USERS)


def test_a_new_version_and_an_erasure_are_seen_at_once(cluster: Cluster) -> None:
    store, path = AdapterStore(cluster.served.store), cluster.files[0]
    store.put("new", with_metadata(store.get(USERS[1]), {}))
    assert cluster.recognise("new", path).json()["text"] == cluster.texts[USERS[1], path]
    store.put("new", with_metadata(store.get(USERS[2]), {}))
    assert cluster.recognise("new", path).json()["text"] == cluster.texts[USERS[2], path]

    def resident() -> float:
        return sum(map(float, re.findall(r"^ds2_adapters_bank_resident{.*} (\S+)", text(), re.MULTILINE)))

    def text() -> str:
        return cluster.ask("GET", "/metrics").text

    before = resident()
    assert cluster.ask("DELETE", path_of("new")).json() == {"erased": True}
    assert resident() == before - 1  # no weights of theirs remain in a replica
    assert cluster.recognise("new", path).headers["x-adapter"] == "base"


def test_too_many_are_told_to_come_again(cluster: Cluster) -> None:
    with ThreadPoolExecutor(10 * QUEUE) as pool:
        answers = list(pool.map(lambda _: cluster.recognise(USERS[0], cluster.files[0]), range(10 * QUEUE)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < len(answers)
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "busy")}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)


def test_a_stream_stays_with_its_replica(cluster: Cluster) -> None:
    user, path = USERS[3], cluster.files[1]
    samples, rate = soundfile.read(path, dtype="int16")
    wanted = cluster.ask("POST", "/v1/audio/transcriptions", files={"file": path.read_bytes()}, data={"user": user})
    url = f"{cluster.served.url.replace('http', 'ws')}/v1/stream?user={quote(user)}&sample_rate={rate}"
    said = []
    with connect(url) as socket, pytest.raises(ConnectionClosed):
        for start in range(0, 2 * len(samples), FRAME):
            socket.send(samples.tobytes()[start : start + FRAME])
            time.sleep(0.02)
        socket.send("finish")
        while True:
            said.append(json.loads(socket.recv(timeout=60)))
    assert (said[0]["mode"], said[0]["adapter"]) == ("stream", "own")
    assert "partial" in {one["type"] for one in said}
    assert (said[-1]["type"], said[-1]["text"]) == ("final", wanted.json()["text"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--replicas", "2"], "--cluster-address and --replicas go with --cluster ray"),
        (["--cluster", "ray", "--replicas", "0"], "--replicas 0: expected at least 1"),
        (["--cluster", "ray", "--replicas", "1000"], "--replicas 1000: this machine has"),
        (
            ["--cluster", "ray", "--cluster-address", "127.0.0.1:1"],
            "--cluster-address 127.0.0.1:1: no cluster can be reached there",
        ),
        (["--cluster", "ray", "--cluster-address", "nowhere"], "--cluster-address nowhere: expected HOST:PORT"),
    ],
)
def test_wrong_options_are_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nemo_ds2_adapters.cli", "serve", "--port", "0", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and message in done.stderr, done.stderr


def test_without_ray(tmp_path: Path) -> None:
    program = "import sys; sys.modules['ray'] = None; from nemo_ds2_adapters.cli import main"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; main(['serve', '--cluster', 'ray'])"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "pip install 'nemo_ds2_adapters[ray]'" in done.stderr
