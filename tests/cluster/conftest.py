"""A Ray cluster of this machine."""

import os
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a running cluster with room for three workers, which nobody has joined."""
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    from ray.cluster_utils import Cluster

    from nemo_ds2_adapters.cluster import connecting  # noqa: F401, which keeps Ray from telling anybody

    # The path of a socket, which Ray makes below it, may have 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        before = os.environ.get("RAY_TMPDIR")
        os.environ["RAY_TMPDIR"] = folder
        cluster = Cluster(True, head_node_args={"num_cpus": 3, "include_dashboard": False})
        yield cluster.address
        cluster.shutdown()
        os.environ.pop("RAY_TMPDIR") if before is None else os.environ.update(RAY_TMPDIR=before)
