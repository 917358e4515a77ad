"""A service over Ray with two replicas on this machine: what a request costs, and how many users are found in memory.

    python benchmarks/cluster_serve.py --figures simulation/measured.json     # ten minutes

First every user is asked for once, which says whose replica is which; then requests come one by one, and all at once,
for what they cost; then at random, at a given rate (Zipf's users, Poisson's times), for the hit rate and p99; last a
replica is killed under the same load. The figures are what `python -m simulation` works with.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.processes import cpu_seconds, megabytes, titled
from benchmarks.service import SECONDS, Measured, utterances
from demo.people import write_others
from demo.run import PRIOR
from nemo_ds2_adapters import AdapterStore
from nemo_ds2_adapters.adaptation.voice_prior.prior import read_prior
from nemo_ds2_adapters.adapters.adapter import with_metadata
from nemo_ds2_adapters.cluster.serve import application_name
from simulation.traffic import Request, steady

REPLICAS = 2
WAIT_SECONDS = 0.005  # that a recording waits for others, by default
START_SECONDS = 25.0  # of a replica, about
WARM_UP_SECONDS = 40.0
KILL_SECONDS = 15.0  # after the first request
WATCH_SECONDS = 5.0
SEED = 0
TOLD = ("users", "rate", "exponent", "seconds", "resident")  # of the arguments
Counts = tuple[float, dict[str, float], dict[str, float]]  # when; requests and hits by replica


@dataclass(frozen=True)
class Sent:
    """A request."""

    user: int
    begun: float  # monotonic seconds
    seconds: float
    status: int


class Cluster:
    """The service, seen from outside."""

    def __init__(self, folder: Path, resident: int) -> None:
        options = ("--cluster", "ray", "--replicas", str(REPLICAS), "--resident", str(resident))
        self.service = Measured(folder, *options)
        self._title = f"ray::ServeReplica:{application_name(folder / 'store')}"

    def replicas(self) -> list[int]:
        """Their processes."""
        return titled(self._title)

    def cores(self) -> dict[str, float]:
        """Processor seconds so far: of the process that is called, of the replicas, of this one."""
        return {
            "front": cpu_seconds(self.service.process.pid),
            "replicas": sum(map(cpu_seconds, self.replicas())),
            "client": time.process_time(),
        }

    def counted(self, *names: str) -> list[dict[str, float]]:
        """Some of the service's counters, each by replica."""
        text = httpx.get(f"{self.service.url}/metrics", timeout=60).text
        found = [re.findall(rf'^ds2_adapters_{name}{{replica="(\w+)"}} (\S+)', text, re.MULTILINE) for name in names]
        return [{replica: float(value) for replica, value in one} for one in found]

    def total(self, *names: str) -> list[float]:
        """The same of all replicas."""
        return [sum(one.values()) for one in self.counted(*names)]

    async def ask(self, client: httpx.AsyncClient, user: int, file: bytes) -> Sent:
        begun = time.monotonic()
        answer = await client.post("/v1/audio/transcriptions", files={"file": file}, data={"user": f"user_{user}"})
        return Sent(user, begun, time.monotonic() - begun, answer.status_code)

    def client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        return httpx.AsyncClient(base_url=self.service.url, timeout=120, limits=limits)


async def owners(cluster: Cluster, users: int, file: bytes) -> list[str]:
    """Whose replica is which: that whose batches have become more."""
    found = []
    (before,) = cluster.counted("batch_size_count")
    async with cluster.client() as client:
        for user in range(users):
            await cluster.ask(client, user, file)
            (after,) = cluster.counted("batch_size_count")
            found += [replica for replica in after if after[replica] > before[replica]]
            before = after
    return found


async def one_by_one(cluster: Cluster, users: Sequence[int], files: Sequence[bytes]) -> list[Sent]:
    async with cluster.client() as client:
        return [await cluster.ask(client, user, file) for user, file in zip(users, files)]


async def all_at_once(cluster: Cluster, users: Sequence[int], files: Sequence[bytes], most: int) -> list[Sent]:
    """So many at a time."""
    room = asyncio.Semaphore(most)

    async def ask(user: int, file: bytes) -> Sent:
        async with room:
            return await cluster.ask(client, user, file)

    async with cluster.client() as client:
        return await asyncio.gather(*map(ask, users, files))


async def arriving(
    cluster: Cluster, requests: Sequence[Request], files: Sequence[bytes], kill_at: float | None = None
) -> tuple[list[Sent], float]:
    """Each at its time, the first at once; perhaps a replica is killed. Returns the requests, and when it was."""
    async with cluster.client() as client:
        start, killed, pending = time.monotonic() - requests[0].at, 0.0, []
        for one, file in zip(requests, files):
            await asyncio.sleep(max(0.0, start + one.at - time.monotonic()))
            if kill_at is not None and not killed and one.at >= kill_at:
                os.kill(cluster.replicas()[0], signal.SIGKILL)
                killed = time.monotonic()
            pending.append(asyncio.create_task(cluster.ask(client, one.user, file)))
        return await asyncio.gather(*pending), killed


async def watched(cluster: Cluster, seconds: float) -> list[Counts]:
    """When, and the banks' requests and hits at that time, again and again."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        requests, hits = await asyncio.to_thread(cluster.counted, "bank_requests", "bank_hits")
        found.append((time.monotonic(), requests, hits))
        await asyncio.sleep(WATCH_SECONDS)
    return found


def cost(cluster: Cluster, before: dict[str, float], requests: int) -> dict[str, float]:
    """Processor seconds per request since then."""
    return {name: (now - before[name]) / requests for name, now in cluster.cores().items()}


def kill(cluster: Cluster, rate: float, seconds: float, some: Callable[[int], list[bytes]], table: Table) -> None:
    """Under load of 32 users, each as often as the others."""
    trace = list(steady(32, rate, 0.0, seconds, SEED))

    async def both() -> tuple[tuple[list[Sent], float], list[Counts]]:
        running = arriving(cluster, trace, some(len(trace)), kill_at=KILL_SECONDS)
        return await asyncio.gather(running, watched(cluster, seconds))

    (sent, killed), counts = asyncio.run(both())
    failed = [one for one in sent if one.status != 200]
    late = sum(one.begun > killed for one in failed)
    what = f"a replica is killed, {len(sent)} requests of 32 users"
    table.add_row(what, f"{len(failed)} refused, of which begun later {late}")
    slowest = max(one.seconds for one in sent)
    back = max((one.begun + one.seconds - killed for one in sent if one.seconds > slowest / 2), default=0.0)
    table.add_row(
        "  longest request, s; when the last that took half as long was answered", f"{slowest:.1f}, {back:.0f}"
    )
    rates = []
    for (_, *before), (now, *after) in pairwise(counts):  # of those that have died nothing more is known
        asked, hits = (sum(new[one] - old.get(one, 0.0) for one in new) for old, new in zip(before, after))
        rates.append(f"{now - killed:+.0f}: {hits / asked if asked else 1:.2f}")
    table.add_row("  hit rate until so many seconds after it", " ".join(rates))


def p(seconds: Sequence[float], percent: int) -> float:
    return statistics.quantiles(seconds, n=100)[percent - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--resident", type=int, default=32, help="users in a replica's memory")
    parser.add_argument("--exponent", type=float, default=0.8, help="of Zipf's law")
    parser.add_argument("--rate", type=float, default=8.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=240.0, help="of requests at random")
    parser.add_argument("--kill-seconds", type=float, default=90.0, help="of requests with a replica killed; 0: none")
    parser.add_argument("--go", type=Path, help="wait for this file before anything is measured")
    parser.add_argument("--figures", type=Path, help="where to write what was measured, JSON")
    arguments = parser.parse_args()
    chance = random.Random(0)
    table = Table("what", "figure", title=f"load of the machine before: {os.getloadavg()[0]:.1f} of {os.cpu_count()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_others(folder / "people", people=16, train=1, test=1, seed=5)
        files = utterances(folder)
        store, prior = AdapterStore(folder / "store"), with_metadata(read_prior(PRIOR).adapter, {})
        for user in range(arguments.users):
            store.put(f"user_{user}", prior)
        adapter_bytes = store.header("user_0").size
        started = time.monotonic()
        cluster = Cluster(folder, arguments.resident)
        table.add_row("seconds until both replicas serve", f"{time.monotonic() - started:.0f}")
        while arguments.go is not None and not arguments.go.exists():
            time.sleep(1)

        def some(count: int) -> list[bytes]:
            return [chance.choice(files) for _ in range(count)]

        owner = asyncio.run(owners(cluster, arguments.users, files[0]))
        share = max(map(owner.count, set(owner))) / len(owner)
        table.add_row("users, of the replica with more", f"{arguments.users}, {100 * share:.0f} %")
        favourite = [next(user for user in range(arguments.users) if owner[user] == one) for one in sorted(set(owner))]

        asyncio.run(one_by_one(cluster, favourite * 5, some(10)))
        before, count = cluster.cores(), 60
        alone = asyncio.run(one_by_one(cluster, favourite * (count // 2), some(count)))
        single = cost(cluster, before, count)
        before, count = cluster.cores(), 400
        (batches,) = cluster.total("batch_size_count")
        asyncio.run(all_at_once(cluster, favourite * (count // 2), some(count), 32))
        mean = count / (cluster.total("batch_size_count")[0] - batches)
        full = cost(cluster, before, count)
        loads = range(min(50, arguments.users))
        begun = time.process_time()
        for user in loads:
            store.read(f"user_{user}")
        load = (time.process_time() - begun) / len(loads)

        whole = WARM_UP_SECONDS + arguments.seconds
        trace = list(steady(arguments.users, arguments.rate, arguments.exponent, whole, SEED))
        first = sum(one.at < WARM_UP_SECONDS for one in trace)
        asyncio.run(arriving(cluster, trace[:first], some(first)))
        names = ("bank_requests", "bank_hits", "batch_size_count")
        counts = cluster.total(*names)
        before = cluster.cores()
        sent, _ = asyncio.run(arriving(cluster, trace[first:], some(len(trace) - first)))
        used = cost(cluster, before, len(sent))
        asked, hits, batches = (now - then for now, then in zip(cluster.total(*names), counts))
        seconds = [one.seconds for one in sent]
        assert {one.status for one in sent} == {200}
        measured = {
            "hit_rate": hits / asked,
            "batch": len(sent) / batches,
            **{f"p{percent}": p(seconds, percent) for percent in (50, 95, 99)},
        }
        for label, value in (("one by one", single), (f"in batches of {mean:.1f}", full)):
            parts = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in value.items())
            table.add_row(f"processor, ms per request, {label}", parts)
        table.add_row("  at random", ", ".join(f"{name} {1000 * value:.1f}" for name, value in used.items()))
        table.add_row("seconds of a request, one by one, p50", f"{p([one.seconds for one in alone], 50):.3f}")
        latency = " ".join(f"{measured[name]:.3f}" for name in ("p50", "p95", "p99"))
        table.add_row(f"{len(sent)} requests at {arguments.rate:g}/s, p50 p95 p99", latency)
        table.add_row("  hit rate, recordings per batch", f"{measured['hit_rate']:.3f}, {measured['batch']:.2f}")
        table.add_row("MB of a replica", " ".join(f"{megabytes(one):.0f}" for one in cluster.replicas()))
        if arguments.figures:
            row = (full["replicas"] - single["replicas"] / mean) / (1 - 1 / mean)
            median = p([one.seconds for one in alone], 50)
            fixed = single["replicas"] - row
            # At random the two cores are busy together more often than one by one, and then everything takes longer.
            expected = fixed / measured["batch"] + row + (1 - measured["hit_rate"]) * load
            slower = used["replicas"] / expected
            figures = {
                "speech_seconds": SECONDS,
                "client_seconds": used["client"],
                "front_seconds": used["front"],
                "batch_seconds": fixed * slower,
                "recording_seconds": row * slower,
                "load_seconds": load,
                "hop_seconds": max(0.0, median - sum(single.values()) - WAIT_SECONDS),
                "start_seconds": START_SECONDS,
                "adapter_bytes": adapter_bytes,
                "replica_bytes": max(map(megabytes, cluster.replicas())) * 1e6 - arguments.resident * adapter_bytes,
                "run": {
                    **{name: getattr(arguments, name) for name in TOLD},
                    "warm_up": WARM_UP_SECONDS,
                    "seed": SEED,
                    "cores": os.cpu_count(),
                    "owner": "".join(str(sorted(set(owner)).index(one)) for one in owner),
                    "measured": measured,
                },
            }
            arguments.figures.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")

        if arguments.kill_seconds:
            kill(cluster, arguments.rate / 2, arguments.kill_seconds, some, table)
        cluster.service.stop()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
