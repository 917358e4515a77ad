"""The service on loopback: throughput against `transcribe`, latency alone and beside a training, memory, training.

    python benchmarks/service.py                # a quarter of an hour
    python benchmarks/service.py --requests 0   # without the 10,000 requests of the memory's part

Base and prior are the demo's, people are synthetic (the `[demo]` extra). Ratios are within one run. Where other
programs run on the machine, processor time says more than seconds.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import psutil
import soundfile
from rich.console import Console
from rich.table import Table

from benchmarks.processes import cpu_seconds, megabytes
from demo.people import write_others
from demo.run import BASE_MODEL, PRIOR
from nemo_ds2_adapters import AdapterStore, transcribe
from nemo_ds2_adapters.adaptation.voice_prior.prior import read_prior
from nemo_ds2_adapters.formats.nemo_archive import restore_model

CLIENTS = 16  # each a user of its own
SECONDS = 3.0  # of speech per request
RATE = 16000
MOST_BESIDE = 60.0  # seconds that requests are sent beside trainings


class Measured:
    """A service in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "nemo_ds2_adapters.cli", "serve", "--store", str(folder / "store")]
        command += ["--port", str(port), "--requests-per-minute", "1000000", *options]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                httpx.get(f"{self.url}/v1/health")
                return
            except httpx.TransportError:
                time.sleep(0.5)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def worker_cpu_seconds(self) -> float:
        """Processor time of the process that trains."""
        children = psutil.Process(self.process.pid).children()
        return max((cpu_seconds(child.pid) for child in children), default=0.0)


def utterances(folder: Path) -> list[bytes]:
    """Three seconds of each of some synthetic people, as files."""
    found = []
    for line in (folder / "people" / "test.json").read_text("utf-8").splitlines():
        samples, _ = soundfile.read(folder / "people" / json.loads(line)["audio_filepath"])
        file = BytesIO()
        soundfile.write(file, np.resize(samples, round(SECONDS * RATE)), RATE, format="WAV", subtype="PCM_16")
        found.append(file.getvalue())
    return found


def load(service: Measured, files: list[bytes], each: int, until: Callable[[], bool] = lambda: False) -> list[float]:
    """Seconds of every request of the clients, each of which sends one after the other."""

    def client(number: int) -> list[float]:
        seconds = []
        with httpx.Client(base_url=service.url, timeout=300) as one:
            for i in range(each):
                if until():
                    break
                file = files[(number + i) % len(files)]
                started = time.perf_counter()
                answer = one.post("/v1/audio/transcriptions", files={"file": file}, data={"user": f"user_{number}"})
                seconds.append(time.perf_counter() - started)
                assert answer.status_code == 200, answer.text
                assert answer.headers["x-adapter"] == "own"
        return seconds

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [one for some in pool.map(client, range(CLIENTS)) for one in some]


def record(client: httpx.Client, user: str, folder: Path, speaker: str, count: int) -> None:
    lines = [json.loads(line) for line in (folder / "people" / "train.json").read_text("utf-8").splitlines()]
    for line in [line for line in lines if line["speaker"] == speaker][:count]:
        file = (folder / "people" / line["audio_filepath"]).read_bytes()
        answer = client.post(f"/v1/users/{user}/recordings", files={"file": file}, data={"text": line["text"]})
        assert answer.status_code == 201, answer.text


def train(client: httpx.Client, user: str) -> dict:
    job = client.post(f"/v1/users/{user}/adapter").json()["id"]
    while (view := client.get(f"/v1/jobs/{job}").json())["state"] in ("queued", "running"):
        time.sleep(0.2)
    return view


def counted(client: httpx.Client) -> tuple[float, float]:
    """Batches, and recordings in them, so far."""
    text = client.get("/metrics").text
    count, total = (
        float(text.partition(f"ds2_adapters_batch_size_{part} ")[2].split()[0]) for part in ("count", "sum")
    )
    return count, total


def percentiles(seconds: list[float]) -> tuple[float, float, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return cuts[49], cuts[94], cuts[98]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=12, help="requests of each client, for throughput and latency")
    parser.add_argument("--requests", type=int, default=10_000, help="of 0.5 s, for memory")
    parser.add_argument("--niceness", type=int, default=19, help="of the training")
    arguments = parser.parse_args()
    table = Table("what", "figure", title=f"load of the machine before: {os.getloadavg()[0]:.1f} of {os.cpu_count()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_others(folder / "people", people=CLIENTS, train=10, test=1, seed=5)
        speaker = json.loads((folder / "people" / "train.json").read_text("utf-8").splitlines()[0])["speaker"]
        store = AdapterStore(folder / "store")
        prior = read_prior(PRIOR).adapter
        for number in range(CLIENTS):
            store.put(f"user_{number}", prior)
        files = utterances(folder)
        service = Measured(folder, "--keep-recordings", "inf", "--training-niceness", str(arguments.niceness))
        with httpx.Client(base_url=service.url, timeout=300) as client:
            record(client, "new", folder, speaker, 10)
            train(client, "new")  # the worker has its model now
            before = service.worker_cpu_seconds()
            started = time.perf_counter()
            view = train(client, "new")
            seconds = time.perf_counter() - started
            cpu = service.worker_cpu_seconds() - before
            table.add_row("ten sentences to an adapter", f"{seconds:.1f} s, {cpu:.1f} s of the processor")
            table.add_row("  which is", f"{view['result']['kind']}, {view['result']['epochs']} epochs")

            load(service, files, 2)
            batches, recordings = counted(client)
            before, started = cpu_seconds(service.process.pid), time.perf_counter()
            alone = load(service, files, arguments.each)
            seconds, cpu = time.perf_counter() - started, cpu_seconds(service.process.pid) - before
            requests = arguments.each * CLIENTS
            batches, recordings = (now - then for now, then in zip(counted(client), (batches, recordings)))
            size = round(recordings / batches)
            table.add_row("recordings per batch", f"{recordings / batches:.1f}")

            model = restore_model(str(BASE_MODEL), None).eval()
            audio = [soundfile.read(BytesIO(file), dtype="float32")[0] for file in files[:CLIENTS]]
            users = [f"user_{number}" for number in range(CLIENTS)]
            transcribe(model, audio, users, store, size, progress=False)
            begun, cpu_begun = time.perf_counter(), time.process_time()
            for _ in range(arguments.each):
                transcribe(model, audio, users, store, size, progress=False)
            offline, offline_cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
            table.add_row("requests per second", f"{requests / seconds:.1f}, transcribe {requests / offline:.1f}")
            table.add_row("  ratio", f"{offline / seconds:.2f}, by processor time {offline_cpu / cpu:.2f}")
            table.add_row("seconds of a request, p50 p95 p99", " ".join(f"{v:.3f}" for v in percentiles(alone)))

            is_over = threading.Event()
            training = threading.Thread(target=lambda: ([train(client, "new") for _ in range(5)], is_over.set()))
            training.start()
            end = time.monotonic() + MOST_BESIDE
            beside = load(service, files, 10_000, until=lambda: is_over.is_set() or time.monotonic() > end)
            training.join()
            again = load(service, files, arguments.each)
            table.add_row("  with trainings beside", " ".join(f"{v:.3f}" for v in percentiles(beside)))
            table.add_row("  after them", " ".join(f"{v:.3f}" for v in percentiles(again)))
            p95 = statistics.mean([percentiles(alone)[1], percentiles(again)[1]])
            table.add_row("  p95 rises by", f"{100 * (percentiles(beside)[1] / p95 - 1):+.0f} %")

            short = [memory_file(file) for file in files]
            sizes = []
            for _ in range(10 if arguments.requests else 0):
                load(service, short, arguments.requests // 10 // CLIENTS)
                sizes.append(megabytes(service.process.pid))
            table.add_row(f"MB after each tenth of {arguments.requests} requests", " ".join(f"{s:.0f}" for s in sizes))
        service.stop()
    Console().print(table)


def memory_file(file: bytes) -> bytes:
    """The first half second."""
    samples, rate = soundfile.read(BytesIO(file))
    short = BytesIO()
    soundfile.write(short, samples[: rate // 2], rate, format="WAV", subtype="PCM_16")
    return short.getvalue()


if __name__ == "__main__":
    main()
