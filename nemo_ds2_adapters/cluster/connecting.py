"""This process as the driver of a Ray cluster."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody; to be set before Ray is loaded

import ray

from nemo_ds2_adapters.cluster.settings import ClusterSettings, check_reachable
from nemo_ds2_adapters.errors import InputError


@contextmanager
def connected(settings: ClusterSettings) -> Iterator[int]:
    """In this block the cluster can be used; one that is started for it ends with it, also if this process is killed.

    Yields:
        the number of workers.

    Raises:
        InputError: there is no such cluster, it cannot be reached, or has no room for so many workers.
    """
    address = settings.address
    if address is not None:
        check_reachable(address, f"cluster {address}")
    own: dict[str, Any] = {} if address else {"include_dashboard": False}
    if address is None and settings.workers is not None:
        own["num_cpus"] = settings.workers * settings.cores
    try:
        # What a worker cannot do, it answers.
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"cluster {address}: {' '.join(str(error).split())[:300]}") from error
    try:
        nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        room = sum(int(cores // settings.cores) for cores in nodes)
        workers = settings.workers or room
        if not 1 <= workers <= room:
            raise InputError(
                f"cluster.workers={workers} of cluster.cores={settings.cores}: the cluster has room for {room} on "
                f"{len(nodes)} machines"
            )
        yield workers
    finally:
        ray.shutdown()
