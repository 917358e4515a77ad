"""What every operation asks first: which service, who calls, and about whom."""

from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Path
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from nemo_ds2_adapters.errors import UserIdError
from nemo_ds2_adapters.serving.auth import Caller
from nemo_ds2_adapters.serving.service import Service, checked_user

bearer = HTTPBearer(auto_error=False, description="A token of the service, for all users or for one.")


def service_of(connection: HTTPConnection) -> Service:
    """The service that an app was made for."""
    service: Service = connection.app.state.service
    return service


Serving = Annotated[Service, Depends(service_of)]


def caller_of(
    service: Serving,
    connection: HTTPConnection,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Caller:
    """Who calls, whose calls are counted.

    Raises:
        Refusal: there is no such token, or there were too many calls.
    """
    return known_caller(service, connection, credentials.credentials if credentials else None)


def known_caller(service: Service, connection: HTTPConnection, token: str | None) -> Caller:
    """As `caller_of`, with a token however it has come."""
    address = connection.client.host if connection.client else "unknown"
    try:
        caller = service.tokens.caller(token, address)
    except Exception:
        service.rate.count(address)  # guesses are counted too
        raise
    service.rate.count(caller.key)
    return caller


Calling = Annotated[Caller, Depends(caller_of)]


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
