"""Whether a cluster does the work, and which, in plain values; checked without one."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Self

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
        if not isinstance(self.address, str | None) or (self.address is not None and not self._is_address()):
            raise InputError(f"cluster.address={self.address}: expected HOST:PORT of a running cluster, auto or null")
        if self.workers is not None:
            _check_count("workers", self.workers)
        _check_count("cores", self.cores)

    def _is_address(self) -> bool:
        host, _, port = str(self.address).rpartition(":")
        return self.address == "auto" or bool(host and "/" not in host and port.isdecimal() and int(port) < 65536)

    def check_reachable(self) -> None:
        """Make sure that somebody listens at an address, for which Ray itself tries a minute.

        Raises:
            InputError: nobody does.
        """
        if self.address is None or self.address == "auto":
            return
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        except OSError as error:
            reason = error.strerror or "no answer"
            raise InputError(f"cluster.address={self.address}: no cluster can be reached there ({reason})") from error

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
        found.check_reachable()
        return found


def _check_count(key: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"cluster.{key}={value}: expected a whole number of at least 1")
