"""A service that stops, dies, and starts again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from demo.run import PRIOR, STREAM_BASE_MODEL
from nemo_ds2_adapters.serving.http.server import STOP_SECONDS
from tests.serving.conftest import CHECKOUT, Person, Served, finished, left_of, path_of, record, transcribe

Start = Callable[..., Served]


def running(client: httpx.Client, job: str) -> None:
    while client.get(f"/v1/jobs/{job}").json()["state"] == "queued":
        time.sleep(0.05)


def events(client: httpx.Client, job: str) -> str:
    with client.stream("GET", f"/v1/jobs/{job}/events") as stream:
        return stream.read().decode()


@pytest.mark.slow
def test_killed_in_the_middle_of_a_training(start: Start, people: list[Person]) -> None:
    """With kill -9, and again with SIGTERM: nothing is lost, and the training is done in the end."""
    one = start()
    with one.client() as client:
        assert "no tokens" in one.log
        record(client, "ann", people[0].train)
        job = client.post(f"{path_of('ann')}/adapter").json()["id"]
        running(client, job)
    for number in (signal.SIGKILL, signal.SIGTERM):
        with ThreadPoolExecutor(1) as pool, one.client() as client:
            listening = pool.submit(events, client, job)
            time.sleep(0.5)
            begun = time.monotonic()
            assert one.stop(number) == (-9 if number == signal.SIGKILL else 0)
        if number == signal.SIGTERM:  # the stream of events ends as it should, and holds nobody up
            assert listening.result().startswith("event: progress") and "event: end" not in listening.result()
            assert time.monotonic() - begun < STOP_SECONDS / 2
        else:
            assert isinstance(listening.exception(), httpx.TransportError)
        one.start()
        with one.client() as client:
            assert client.get(f"/v1/jobs/{job}").json()["state"] in ("queued", "running")
            assert len(client.get(path_of("ann")).json()["recordings"]) == len(people[0].train)
            running(client, job)
    with one.client() as client:
        assert finished(client, job)["state"] == "done"
        assert client.get(path_of("ann")).json()["adapter_used"] == "own"
        assert client.delete(path_of("ann")).json() == {"erased": True}
    assert left_of(one.store) == []
    assert one.stop() == 0
    assert "Traceback" not in one.log


@pytest.mark.slow
def test_the_process_that_trains_is_killed(start: Start, people: list[Person]) -> None:
    one = start()
    with one.client() as client:
        record(client, "ann", people[0].train[:3])
        job = client.post(f"{path_of('ann')}/adapter").json()["id"]
        running(client, job)
        assert one.process is not None
        children = psutil.Process(one.process.pid).children()
        assert children
        for child in children:
            child.kill()
        assert finished(client, job)["state"] == "done"
        with client.stream("GET", f"/v1/jobs/{job}/events") as stream:
            assert "event: end" in stream.read().decode()


@pytest.mark.slow
def test_running_requests_end_and_others_are_told(start: Start, people: list[Person]) -> None:
    one = start("--queue-size", "2", "--batch-size", "1", "--keep-recordings", "inf", "--requests-per-minute", "90")
    path = people[0].test[0][0]
    with ThreadPoolExecutor(24) as pool, one.client() as client:
        record(client, "ann", people[0].train[:2])
        assert client.get("/v1/health").json()["keep_recordings"] is None
        answers = list(pool.map(lambda _: transcribe(client, path), range(24)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert 0 < len(refused) < len(answers)
        assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "busy")}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        last = [pool.submit(transcribe, client, path) for _ in range(2)]
        time.sleep(0.05)
        assert one.stop() == 0
        texts = {answer.json()["text"] for answer in answers if answer.status_code == 200}
        ended = [one for one in last if one.exception() is None]  # whoever had not been let in yet was not
        assert {future.result().json()["text"] for future in ended if future.result().status_code == 200} <= texts
    one.start()
    with one.client() as client:
        assert len(client.get(path_of("ann")).json()["recordings"]) == 2
        statuses = [client.get("/v1/prompts").status_code for _ in range(100)]
    assert (statuses[0], statuses[-1]) == (200, 429)


def test_without_the_demo(tmp_path: Path) -> None:
    program = (
        "import pathlib, nemo_ds2_adapters.cli.serve as serve; serve.DEMO = pathlib.Path('/nothing')\n"
        "from nemo_ds2_adapters.cli import main; main(['serve'])"
    )
    environment = {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "give MODEL.nemo" in done.stderr


def test_a_prior_of_another_base_leaves_nothing_behind(tmp_path: Path) -> None:
    command = ["serve", str(STREAM_BASE_MODEL), "--prior", str(PRIOR), "--store", "store", "--port", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "nemo_ds2_adapters.cli", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},  # NeMo needs a PATH
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "the voice prior was made for another base model" in done.stderr
    assert not list(tmp_path.iterdir())
