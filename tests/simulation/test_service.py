"""The simulation against what is known of queues and caches."""

import math

import pytest

from simulation.service import Figures, Plan, Simulation
from simulation.traffic import requests, steady

FREE = {"client_seconds": 0.0, "front_seconds": 0.0, "load_seconds": 0.0, "hop_seconds": 0.0, "start_seconds": 30.0}
FIGURES = Figures(
    speech_seconds=3.0,
    batch_seconds=0.0,
    recording_seconds=0.1,
    adapter_bytes=1.0,
    replica_bytes=1.0,
    **FREE,
)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_a_queue_waits_as_long_as_theory_says(load: float) -> None:
    """M/D/1: Poisson's times, all alike, one after another."""
    plan = Plan(1, resident=100, owner=lambda user: 0, batch_size=1, wait_seconds=0.0)
    result = Simulation(FIGURES, plan).run(steady(10, load / 0.1, 0.0, 20_000, seed=1))
    mean = sum(result.seconds) / len(result.seconds)
    assert mean == pytest.approx(0.1 + 0.1 * load / (2 * (1 - load)), rel=0.05)
    assert result.batch == 1.0 and result.busy == pytest.approx(0.1 * len(result.seconds))


def test_a_bank_is_hit_as_often_as_theory_says() -> None:
    """Che's approximation of a cache that forgets what was used longest ago."""
    users, resident, exponent = 500, 60, 0.9
    plan = Plan(1, resident, owner=lambda user: 0, batch_size=1, wait_seconds=0.0)
    result = Simulation(FIGURES, plan).run(steady(users, 5.0, exponent, 10_000, seed=2), warm_up=1000.0)
    weights = [(rank + 1) ** -exponent for rank in range(users)]
    shares = [weight / sum(weights) for weight in weights]
    low, high = 0.0, 1e6  # requests that somebody stays for
    for _ in range(60):
        middle = (low + high) / 2
        present = sum(1 - math.exp(-share * middle) for share in shares)
        low, high = (middle, high) if present < resident else (low, middle)
    expected = sum(share * (1 - math.exp(-share * low)) for share in shares)
    assert result.hit_rate == pytest.approx(expected, abs=0.02)


def test_all_are_answered_although_replicas_die() -> None:
    plan = Plan(2, resident=50, owner=lambda user: user % 2, failures_per_day=200.0)
    trace = list(requests(40, 5.0, 0.5, 12 * 3600, 14 * 3600, seed=3))
    result = Simulation(FIGURES, plan).run(trace)
    assert result.failures > 10 and len(result.seconds) == len(trace)
    assert len(trace) / 7200 == pytest.approx(5.0 * (1 + 0.8 * math.sin(2 * math.pi * 3 / 24)), rel=0.05)
    assert 0.9 < result.hit_rate < 1.0
