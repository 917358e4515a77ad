"""Whether a cluster does the work, and which, in plain values; checked without one."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Self

from nemo_ds2_adapters.checks import check_whole
from nemo_ds2_adapters.errors import InputError

NEEDED = ("ray", "pyarrow")
CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class ClusterSettings:
    """A Ray cluster, and how many processes of it are used.

    Raises:
        InputError: a value is not what it must be; names it by its key in conf/asr_adapters/cluster/ray.yaml.
    """

    address: str | None = None  # HOST:PORT of a running one, or `auto`; None: one is started here
    workers: int | None = None  # processes; None: as many as there is room for
    cores: int = 1  # of each

    def __post_init__(self) -> None:
        if self.address is not None:
            check_address(self.address, f"cluster.address={self.address}")
        if self.workers is not None:
            check_whole("cluster.workers", self.workers, 1)
        check_whole("cluster.cores", self.cores, 1)

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Self | None:
        """Of the config's section `cluster`, as plain values; None where this process is to do the work.

        Raises:
            InputError: a value is wrong, the extra [ray] is not installed, or nobody listens at the address.
        """
        engine = section["engine"]
        given = [f"cluster.{key}={section[key]}" for key in ("address", "workers") if section[key] is not None]
        if engine is None and given:
            raise InputError(f"{given[0]} is for a cluster: add cluster=ray")
        if engine is None:
            return None
        if engine != "ray":
            raise InputError(f"cluster.engine={engine}: write cluster=ray")
        missing = [name for name in NEEDED if find_spec(name) is None]
        if missing:
            raise InputError(f"cluster=ray: {' and '.join(missing)} missing; pip install 'nemo_ds2_adapters[ray]'")
        found = cls(section["address"], section["workers"], section["cores"])
        if found.address is not None:
            check_reachable(found.address, f"cluster.address={found.address}")
        return found


def check_address(address: Any, shown: str) -> None:
    """Refuse (InputError) what is no address of a cluster; `shown` is how it was given."""
    host, _, port = str(address).rpartition(":")
    is_place = host and "/" not in host and port.isdecimal() and int(port) < 65536
    if not isinstance(address, str) or not (address == "auto" or is_place):
        raise InputError(f"{shown}: expected HOST:PORT of a running cluster, or auto")


def check_reachable(address: str, shown: str) -> None:
    """Make sure that somebody listens at an address, for which Ray itself tries a minute; `shown` is how it was given.

    Raises:
        InputError: nobody does.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or "no answer"
        raise InputError(f"{shown}: no cluster can be reached there ({reason})") from error
