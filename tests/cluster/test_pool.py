"""Tasks and workers that end before they have done them."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")

from nemo_ds2_adapters.cluster.connecting import connected  # noqa: E402
from nemo_ds2_adapters.cluster.pool import MOST_LOSSES, GivenUp, Pool  # noqa: E402
from nemo_ds2_adapters.cluster.settings import ClusterSettings  # noqa: E402
from nemo_ds2_adapters.errors import ClusterError, InputError  # noqa: E402


@ray.remote
class Adder:
    """Adds; ends with the process where it is told to."""

    def __init__(self, is_sound: bool = True) -> None:
        self.is_sound = is_sound

    def ready(self) -> None:
        if not self.is_sound:
            os._exit(1)

    def add(self, numbers: list[int], summand: int, folder: str) -> list[int]:
        if 13 in numbers:
            os._exit(1)
        if 7 in numbers and not (marker := Path(folder, "7")).exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if 99 in numbers:
            raise InputError("99: too much")
        if 77 in numbers:
            raise LookupError("77 is odd")
        time.sleep(0.01)
        return [number + summand for number in numbers]


@pytest.fixture
def workers(address: str) -> Iterator[int]:
    with connected(ClusterSettings(address, workers=2)) as count:
        yield count


def pool(workers: int, said: list[str], **options: Any) -> Pool:
    return Pool(lambda: Adder.remote(**options), workers, said.append)


def test_everything_is_done_once(workers: int, tmp_path: Path) -> None:
    said: list[str] = []
    tasks = [[i, i + 1] for i in range(20, 60, 2)]
    adders = pool(workers, said)
    for _ in range(2):
        done = adders.run("add", iter(tasks), 100, str(tmp_path))
        assert sorted(done) == [(task, [number + 100 for number in task]) for task in tasks]
    assert list(adders.run("add", [], 1, "")) == [] and said == []


def test_lost_workers(workers: int, tmp_path: Path) -> None:
    """Killed once, a task is done by another; one item that kills three is given up, and the others are not."""
    said: list[str] = []
    tasks = [[1, 2], [6, 7], [12, 13, 14], [3]]
    done = list(pool(workers, said).run("add", tasks, 100, str(tmp_path)))
    assert sorted(number for task, _ in done for number in task) == sorted(number for task in tasks for number in task)
    ((given_up, why),) = ((task, result.reason) for task, result in done if isinstance(result, GivenUp))
    assert given_up == [13] and why.startswith(f"given up after {MOST_LOSSES} workers: The actor died")
    assert ([6, 7], [106, 107]) in done and ([12], [112]) in done and ([14], [114]) in done
    assert len(said) == 1 + MOST_LOSSES and all("a worker was lost" in line for line in said)


def test_what_a_worker_should_not_raise(workers: int, tmp_path: Path) -> None:
    """One odd user of a million does not end the run, but is told."""
    done = list(pool(workers, said := []).run("add", [[76, 77, 78], [79]], 100, str(tmp_path)))
    assert ([77], GivenUp(f"given up after {MOST_LOSSES} workers: LookupError: 77 is odd")) in done
    assert ([76], [176]) in done and ([79], [179]) in done and len(done) == 4
    assert said == ["a worker failed: LookupError: 77 is odd"] * MOST_LOSSES


def test_errors_of_workers(workers: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="^99: too much$"):
        list(pool(workers, []).run("add", [[99]], 1, str(tmp_path)))
    with pytest.raises(ClusterError, match="workers end before they are ready"):
        list(pool(workers, [], is_sound=False).run("add", [[1]], 1, str(tmp_path)))


def test_connecting(address: str) -> None:
    with (
        pytest.raises(InputError, match=r"cluster.workers=4 of cluster.cores=1: .* room for 3 on 1 machines"),
        connected(ClusterSettings(address, workers=4)),
    ):
        pass
    with (
        pytest.raises(InputError, match=r"cluster 127.0.0.1:9: no cluster can be reached there"),
        connected(ClusterSettings("127.0.0.1:9")),
    ):
        pass
    with connected(ClusterSettings(address, cores=2)) as count:
        assert count == 1
