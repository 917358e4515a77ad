"""What surrounds every request: its limits, where it may come from, and what is noted of it."""

import asyncio
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nemo_ds2_adapters.serving.http.problems import respond
from nemo_ds2_adapters.serving.logs import log
from nemo_ds2_adapters.serving.metrics import Metrics
from nemo_ds2_adapters.serving.refusal import Refusal
from nemo_ds2_adapters.serving.settings import LOOPBACK

SECURITY = {  # of every answer; the page loads nothing from elsewhere
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}


class KeepEncoded:
    """Leaves a user id in a path percent-encoded until the path was taken apart: `a%2Fb` is one id, no two folders."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/users/"):
            scope["path"] = scope["raw_path"].decode("ascii")
        await self.app(scope, receive, send)


class UploadLimits:
    """Refuses bodies that are too large (413), or take too long to arrive (408)."""

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self.app, self._max_bytes, self._seconds = app, max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > self._max_bytes:
            await respond(self._too_large())(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self._seconds
        size, is_complete = 0, False

        async def limited() -> Message:
            nonlocal size, is_complete
            if is_complete:
                return await receive()  # that the client has gone
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise Refusal(
                    408, "slow", f"the request has not arrived within {self._seconds:g} s", {"Connection": "close"}
                ) from None
            size += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if size > self._max_bytes:
                raise self._too_large()
            return message

        await self.app(scope, limited, send)

    def _too_large(self) -> Refusal:
        detail = f"the request is larger than {self._max_bytes / 1e6:g} MB, which is the limit"
        return Refusal(413, "too_large", detail, {"Connection": "close"})


class OwnPagesOnly:
    """Refuses what another site's page sends through somebody's browser.

    Args:
        app: what is protected.
        origins: of other pages that may call, as `https://host`.
        loopback_only: there are no tokens: the service must be called by a name of this machine, so that no other
            name can be made to point to it.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str], loopback_only: bool) -> None:
        self.app, self._origins, self._loopback_only = app, origins, loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin")
            if self._loopback_only and (urlsplit(f"//{host}").hostname or "") not in LOOPBACK:
                await self._refuse(scope, receive, send, "without tokens, the service answers to this machine's names")
                return
            if origin is not None and origin not in self._origins and urlsplit(origin).netloc != host:
                await self._refuse(scope, receive, send, "pages of other sites may not call this service")
                return
        await self.app(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, detail: str) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 4403, "reason": detail})
        else:
            await respond(Refusal(403, "origin", detail))(scope, receive, send)


class Observed:
    """Notes each request in the log and for Prometheus: the route, never a path, which may name a person."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            seconds, route = time.monotonic() - started, getattr(scope.get("route"), "path", "(other)")
            self._metrics.requests.labels(route, scope["method"], status).inc()
            self._metrics.latency.labels(route).observe(seconds)
            note = {"route": route, "method": scope["method"], "status": status, "seconds": round(seconds, 4)}
            log("request", **note, problem=scope.get("problem"))
