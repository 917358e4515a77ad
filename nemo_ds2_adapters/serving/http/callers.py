"""What every operation asks first: which service, who calls, and about whom."""

from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Path
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from nemo_ds2_adapters.errors import UserIdError
from nemo_ds2_adapters.serving.auth import Caller
from nemo_ds2_adapters.serving.http.problems import respond
from nemo_ds2_adapters.serving.refusal import Refusal
from nemo_ds2_adapters.serving.service import Service, checked_user

BASE = "base"  # in place of a person's model
GUARDED, OPEN = ("/v1/", "/metrics"), ("/v1/health",)  # beginnings of paths, and whole ones

bearer = HTTPBearer(auto_error=False, description="A token of the service, for all users or for one.")


def service_of(connection: HTTPConnection) -> Service:
    """The service that an app was made for."""
    service: Service = connection.app.state.service
    return service


Serving = Annotated[Service, Depends(service_of)]


def known_caller(service: Service, connection: HTTPConnection, token: str | None) -> Caller:
    """Who calls with a token, or none; their calls are counted.

    Raises Refusal: there is no such token, or there were too many calls.
    """
    address = connection.client.host if connection.client else "unknown"
    try:
        caller = service.tokens.caller(token, address)
    except Refusal:
        service.rate.count(address)  # guesses are counted too
        raise
    service.rate.count(caller.key)
    return caller


def sent_token(connection: HTTPConnection) -> str | None:
    """The bearer token of a request, None if there is none."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class KnownCallers:
    """Finds out who calls before anything of a request is read; health and the page are for everybody."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith(GUARDED) and path not in OPEN:
            connection = HTTPConnection(scope)
            try:
                caller = known_caller(self._service, connection, sent_token(connection))
            except Refusal as error:
                scope["problem"] = error.code
                await respond(error)(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)


def caller_of(connection: HTTPConnection, _: Annotated[object, Depends(bearer)]) -> Caller:
    """Who calls, as `KnownCallers` has found out."""
    caller: Caller = connection.state.caller
    return caller


Calling = Annotated[Caller, Depends(caller_of)]


def chosen_user(caller: Caller, user: str | None, model: str) -> str | None:
    """Whose adapter is asked for, None for the base; a caller that may speak for one user need not name them.

    Raises UserIdError: it is no user id. Refusal: the caller may not speak for this user.
    """
    if user is None:
        user = caller.user
    else:
        caller.check(checked_user(user))
    return None if model == BASE else user


def user_of(
    caller: Calling,
    user: Annotated[str, Path(description="User id, any text, percent-encoded.", examples=["ann@example.com"])],
) -> str:
    """About whom the request is.

    Raises:
        UserIdError: it is no user id.
        Refusal: the caller may not speak for this user.
    """
    try:  # the path arrives as it was sent, see `KeepEncoded`
        user = unquote(user, errors="strict")
    except UnicodeDecodeError as error:
        raise UserIdError("user: the user id is not UTF-8 text") from error
    caller.check(checked_user(user))
    return user


About = Annotated[str, Depends(user_of)]
