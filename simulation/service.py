"""The service as events: a process that is called, and replicas with a queue, a bank and a core each."""

import random
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from simulation.traffic import DAY, Request

SLICE_SECONDS = 0.004  # for which a process has a core that others want too
DRAIN_SECONDS = 60.0  # after the last request

Steps = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Figures:
    """What was measured of a small service; seconds of a processor, unless it says otherwise."""

    speech_seconds: float  # of a recording, of speech
    client_seconds: float  # of a request, in the program that calls, where it shares the machine
    front_seconds: float  # of a request, in the process that is called
    batch_seconds: float  # of a batch, however many recordings are in it
    recording_seconds: float  # of each recording in it
    load_seconds: float  # of an adapter that is not in memory
    hop_seconds: float  # of a request between the processes, of time
    start_seconds: float  # until a replica serves, of time
    adapter_bytes: float
    replica_bytes: float  # of memory, without users


@dataclass(frozen=True)
class Plan:
    """How a service is set up."""

    replicas: int
    resident: int  # users in a replica's memory
    owner: Callable[[int], int]  # the replica of a user
    cores: int | None = None  # that all processes share, the calling one too; None: each has its own
    batch_size: int = 16
    wait_seconds: float = 0.005
    store_seconds: float = 0.0  # that the store takes for an adapter, of time
    failures_per_day: float = 0.0  # of each replica


@dataclass
class Result:
    """What happened."""

    seconds: list[float] = field(default_factory=list)  # of each request
    requests: int = 0  # users asked for, each once per batch
    hits: int = 0
    batches: int = 0
    recordings: int = 0  # in them
    busy: float = 0.0  # processor seconds of the replicas
    failures: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of the users who were found in memory."""
        return self.hits / max(1, self.requests)

    @property
    def batch(self) -> float:
        """Recordings per batch."""
        return self.recordings / max(1, self.batches)

    def percentile(self, percent: float) -> float:
        """Seconds of a request."""
        return float(np.percentile(self.seconds, percent))


class Replica:
    """Recognises one batch at a time."""

    def __init__(self, simulation: "Simulation", cores: simpy.Resource) -> None:
        self._simulation, self._cores = simulation, cores
        self.waiting: list[tuple[Request, simpy.Event]] = []
        self.bank: OrderedDict[int, None] = OrderedDict()  # users, least recently used first
        self.is_up = True
        self._arrived = simulation.env.event()
        simulation.env.process(self._run())

    def submit(self, request: Request, done: simpy.Event) -> None:
        """Take a recording into the queue; `done` happens when it has been recognised."""
        self.waiting.append((request, done))
        if not self._arrived.triggered:
            self._arrived.succeed()

    def _run(self) -> Steps:
        env, plan = self._simulation.env, self._simulation.plan
        while True:
            if not self.waiting:
                self._arrived = env.event()
                yield self._arrived
            if len(self.waiting) < plan.batch_size:
                yield env.timeout(plan.wait_seconds)
            batch, self.waiting = self.waiting[: plan.batch_size], self.waiting[plan.batch_size :]
            users = {request.user for request, _ in batch}
            misses = sum(user not in self.bank for user in users)
            for user in users:
                self.bank[user] = None
                self.bank.move_to_end(user)
            while len(self.bank) > plan.resident:
                self.bank.popitem(last=False)
            yield env.timeout(misses * plan.store_seconds)
            figures = self._simulation.figures
            work = figures.batch_seconds + len(batch) * figures.recording_seconds + misses * figures.load_seconds
            yield from self._simulation.work(self._cores, work)
            for _, done in batch:
                done.succeed()
            result = self._simulation.result
            result.requests += len(users)
            result.hits += len(users) - misses
            result.batches += 1
            result.recordings += len(batch)
            result.busy += work


class Simulation:
    """A run of a service."""

    def __init__(self, figures: Figures, plan: Plan, seed: int = 0) -> None:
        self.env, self.figures, self.plan, self.result = simpy.Environment(), figures, plan, Result()
        self._chance = random.Random(seed)
        shared = None if plan.cores is None else simpy.Resource(self.env, plan.cores)

        def cores() -> simpy.Resource:
            return shared or simpy.Resource(self.env, 1)

        self._slice = SLICE_SECONDS if shared else float("inf")
        self._front, self._client = (cores(), simpy.Resource(self.env, 1)), (cores(), simpy.Resource(self.env, 1))
        self._replicas = [Replica(self, cores()) for _ in range(plan.replicas)]
        if plan.failures_per_day:
            for replica in self._replicas:
                self.env.process(self._failing(replica))

    def run(self, requests: Iterable[Request], warm_up: float = 0.0) -> Result:
        """Let requests come, the first at once; those of the first `warm_up` seconds fill the banks uncounted."""
        self.env.run(until=self.env.process(self._arriving(requests, warm_up)))
        self.env.run(until=self.env.now + DRAIN_SECONDS)
        return self.result

    def work(self, cores: simpy.Resource, seconds: float) -> Steps:
        """Use a core for so long, in turns with others."""
        while seconds > 0:
            with cores.request() as core:
                yield core
                turn = min(self._slice, seconds)
                yield self.env.timeout(turn)
                seconds -= turn

    def _arriving(self, requests: Iterable[Request], warm_up: float) -> Steps:
        start, is_warm = None, False
        for request in requests:
            start = request.at if start is None else start
            yield self.env.timeout(max(0.0, request.at - start - self.env.now))
            if not is_warm and self.env.now >= warm_up:
                self.result, is_warm = Result(), True
            self.env.process(self._answering(request))

    def _answering(self, request: Request) -> Steps:
        begun, result = self.env.now, self.result
        shared = self.plan.cores is not None
        yield from self._called(self._client, self.figures.client_seconds / 2 * shared)
        yield from self._called(self._front, self.figures.front_seconds / 2)
        yield self.env.timeout(self.figures.hop_seconds)
        done = self.env.event()
        self._replica(request.user).submit(request, done)
        yield done
        yield from self._called(self._front, self.figures.front_seconds / 2)
        yield from self._called(self._client, self.figures.client_seconds / 2 * shared)
        result.seconds.append(self.env.now - begun)

    def _replica(self, user: int) -> Replica:
        own = self._replicas[self.plan.owner(user)]
        up = [one for one in self._replicas if one.is_up]
        return own if own.is_up or not up else up[user % len(up)]

    def _called(self, process: tuple[simpy.Resource, simpy.Resource], seconds: float) -> Steps:
        """Have a process that does one thing at a time work."""
        cores, itself = process
        with itself.request() as turn:
            yield turn
            yield from self.work(cores, seconds)

    def _failing(self, replica: Replica) -> Steps:
        while True:
            yield self.env.timeout(self._chance.expovariate(self.plan.failures_per_day / DAY))
            replica.is_up = False
            replica.bank.clear()
            self.result.failures += 1
            lost, replica.waiting = replica.waiting, []
            for request, done in lost:  # they are sent again
                self._replica(request.user).submit(request, done)
            yield self.env.timeout(self.figures.start_seconds)
            replica.is_up = True
