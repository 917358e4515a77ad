"""What a service of any size needs: `python -m simulation`, with the figures of `benchmarks/cluster_serve.py`.

First the simulation is compared with the run that was measured; then come tables for 10^4, 10^5 and 10^6 users.
"""

import argparse
import json
import math
import random
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from simulation.service import Figures, Plan, Result, Simulation
from simulation.traffic import DAY, DEPTH, requests, steady

MEASURED = Path(__file__).with_name("measured.json")
UTILISATION = 0.6  # of a core, at the busiest hour
BATCH = 2.0  # recordings that share one then, at the least
CELL_REPLICAS = 12  # most replicas behind one process that is called
HOURS = 14.0, 16.5  # of the day that are simulated, and the first of them fills the banks
MACHINE_CORES = 16
MONTH = 30  # days


@dataclass(frozen=True)
class Demand:
    """What people do."""

    users: int
    per_day: float = 10.0  # requests of a user
    exponent: float = 0.9  # of Zipf's law
    trainings: float = 1.0  # of a user per month


def check(figures: Figures, run: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Name, measured and simulated value of the run that was measured."""
    trace = list(steady(run["users"], run["rate"], run["exponent"], run["warm_up"] + run["seconds"], run["seed"]))
    plan = Plan(
        len(set(run["owner"])), run["resident"], owner=lambda user: int(run["owner"][user]), cores=run["cores"]
    )
    result = Simulation(figures, plan).run(trace, run["warm_up"])
    measured = run["measured"]
    found = {"hit_rate": result.hit_rate, "batch": result.batch}
    found |= {f"p{percent}": result.percentile(percent) for percent in (50, 95, 99)}
    return [(name, measured[name], found[name]) for name in measured]


def cell(figures: Figures, demand: Demand, resident: int, store_seconds: float) -> tuple[int, int, Result]:
    """How many cells a service needs, replicas in each, and a simulated afternoon of one of them.

    A cell is a process that is called, with its replicas and its store.
    """
    peak = demand.users * demand.per_day / DAY * (1 + DEPTH)
    each = figures.batch_seconds / BATCH + figures.recording_seconds + figures.load_seconds
    replicas = max(2, math.ceil(peak * each / UTILISATION))
    cells = max(math.ceil(peak * figures.front_seconds / UTILISATION), math.ceil(replicas / CELL_REPLICAS))
    per_cell = max(2, math.ceil(replicas / cells))
    users = demand.users // cells
    chance = random.Random(0)
    owner = [chance.randrange(per_cell) for _ in range(users)]
    plan = Plan(per_cell, resident, owner.__getitem__, store_seconds=store_seconds, failures_per_day=1.0)
    start, end = (hour * 3600 for hour in HOURS)
    mean = users * demand.per_day / DAY
    result = Simulation(figures, plan).run(requests(users, mean, demand.exponent, start, end, seed=0), 3600.0)
    return cells, per_cell, result


def row(figures: Figures, demand: Demand, resident: int, store_seconds: float, training_seconds: float) -> list[str]:
    """A line of the table."""
    cells, replicas, result = cell(figures, demand, resident, store_seconds)
    hours = HOURS[1] - HOURS[0] - 1
    per_request = result.busy / result.recordings + figures.front_seconds
    training = demand.users * demand.trainings / MONTH / DAY * training_seconds / UTILISATION  # cores
    cores = cells * (replicas + 1) + math.ceil(training)
    memory = cells * (replicas * (figures.replica_bytes + resident * figures.adapter_bytes) + figures.replica_bytes)
    misses = 1 - result.hit_rate
    per_day = demand.users * demand.per_day
    work = (per_request * demand.per_day * MONTH + training_seconds * demand.trainings) / 3600
    peak = cells * (result.requests - result.hits) / (hours * 3600)
    return [
        f"{demand.users:,}",
        f"{cells} x (1 + {replicas})",
        f"{cores}",
        f"{math.ceil(cores / MACHINE_CORES)}",
        f"{memory / 1e9:.0f}",
        f"{result.hit_rate:.3f}",
        f"{result.percentile(50):.2f}, {result.percentile(99):.2f}",
        f"{demand.users * figures.adapter_bytes / 1e9:.0f}",
        f"{peak:.1f}",
        f"{per_day * misses * figures.adapter_bytes / 1e9:.1f}",
        f"{cores * 24 * MONTH / demand.users:.4f}",
        f"{work:.4f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, default=MEASURED)
    parser.add_argument("--resident", type=int, default=2048, help="users in a replica's memory")
    parser.add_argument("--store-ms", type=float, default=5.0, help="that the store takes for an adapter")
    parser.add_argument("--per-day", type=float, default=10.0, help="requests of a user")
    parser.add_argument("--training-seconds", type=float, default=1.0, help="of a processor, for a user's adapter")
    parser.add_argument("--users", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    arguments = parser.parse_args()
    measured = json.loads(arguments.figures.read_text("utf-8"))
    figures = Figures(**{one.name: measured[one.name] for one in fields(Figures)})
    console = Console(width=170)

    table = Table("what", "measured", "simulated", "ratio", title="the run that was measured")
    for name, real, simulated in check(figures, measured["run"]):
        table.add_row(name, f"{real:.3f}", f"{simulated:.3f}", f"{simulated / real:.2f}")
    console.print(table)

    headings = ("users", "cells", "cores", f"machines of {MACHINE_CORES}", "memory, GB", "hit rate", "p50, p99, s")
    store = ("store, GB", "reads/s, busiest", "read, GB/day")
    table = Table(
        *headings, *store, "core-h/user/month", "of which work", title=f"{arguments.per_day:g} requests a day each"
    )
    for users in arguments.users:
        demand = Demand(users, arguments.per_day)
        values = row(figures, demand, arguments.resident, arguments.store_ms / 1000, arguments.training_seconds)
        table.add_row(*values)
    console.print(table)


if __name__ == "__main__":
    main()
