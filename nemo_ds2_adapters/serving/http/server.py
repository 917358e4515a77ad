"""A service on a port, until it is told to stop."""

import asyncio
import signal
import socket
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.serving.auth import VARIABLE, Tokens
from nemo_ds2_adapters.serving.http.app import create_app
from nemo_ds2_adapters.serving.logs import start_log
from nemo_ds2_adapters.serving.service import Service
from nemo_ds2_adapters.serving.settings import LOOPBACK, ServiceSettings

HEAD_SECONDS = 10.0  # in which a request's head must have arrived
STOP_SECONDS = 30  # that running requests have to end
MOST_CONNECTIONS = 1000


class ImpatientProtocol(H11Protocol):
    """HTTP that does not wait for ever for the head of a request, as uvicorn's does."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer: asyncio.TimerHandle | None = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering():
            self._stop_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _give_up(self) -> None:
        self._head_timer = None
        if not self._is_answering() and self.transport.get_protocol() is self:  # else it has become a WebSocket
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Server(uvicorn.Server):
    """Tells the service at once that it is to stop, so that streams of events end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.stopping.set()
        super().handle_exit(sig, frame)


def check_exposure(settings: ServiceSettings, tokens: Tokens) -> None:
    """Refuse to serve others than this machine without tokens. Raises InputError: says how to make tokens."""
    if not tokens and settings.host not in LOOPBACK:
        raise InputError(
            f"--host {settings.host}: without tokens a service is for this machine alone: give --token-file, or "
            f"tokens in {VARIABLE}"
        )


def bind(settings: ServiceSettings) -> socket.socket:
    """The address of a service, taken before a model is loaded; nobody can connect yet.

    Raises InputError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
    except OSError as error:
        raise InputError(f"--host {settings.host} --port {settings.port}: {error.strerror or error}") from error
    return bound


def run(service: Service, bound: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; running requests end, trainings go on at the next start."""
    start_log()
    config = uvicorn.Config(
        create_app(service),
        http=ImpatientProtocol,
        access_log=False,  # it has paths, and they have user ids
        log_config=None,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
        ws_max_size=1_000_000,
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # which uvicorn raises anew once it has stopped: that is no error
        signal.signal(number, lambda *_: None)
    Server(config, service).run([bound])
