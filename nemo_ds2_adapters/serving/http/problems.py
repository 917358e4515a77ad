"""Errors as a client sees them: RFC 9457 problem details, with the `code` of the package's exceptions."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from nemo_ds2_adapters.errors import (
    AdapterFileError,
    BaseMismatchError,
    InputError,
    NemoDs2Error,
    StoreAccessError,
    StoreBusyError,
    UnknownUserError,
)
from nemo_ds2_adapters.serving.refusal import RETRY_SECONDS, Refusal

MEDIA_TYPE = "application/problem+json"
# Status, and what a client is told in place of a message with paths; the first that an exception is one of.
KINDS: tuple[tuple[type[NemoDs2Error], int, str | None], ...] = (
    (UnknownUserError, 404, "nothing is known of this user, or not any more"),
    (BaseMismatchError, 409, "the user's adapter was made for another base model: train it again"),
    (StoreBusyError, 503, "another program is writing to the store: try again"),
    (StoreAccessError, 503, "the store cannot be read or written; the service's log says why"),
    (AdapterFileError, 500, "the user's adapter cannot be used; the service's log says why"),
    (InputError, 422, None),
    (NemoDs2Error, 500, "the service has failed; its log says how"),
)
CODES = {400: "request", 404: "not_found", 405: "method"}  # of what the framework refuses

logger = logging.getLogger(__name__)


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str

    model_config = {
        "extra": "allow",
        "json_schema_extra": {
            "example": {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": "there is no adapter of this user",
                "code": "unknown_user",
            }
        },
    }


def problem_of(error: Exception) -> tuple[Problem, dict[str, str]]:
    """What an exception is to a client, and the headers that go with it."""
    if isinstance(error, Refusal):
        return _problem(error.status, error.code, str(error), **error.more), error.headers
    if isinstance(error, NemoDs2Error):
        status, detail = next((status, detail) for kind, status, detail in KINDS if isinstance(error, kind))
        if status >= 409 and detail is not None:
            logger.warning("%s: %s", error.code, error)
        headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else {}
        return _problem(status, error.code, detail or str(error)), headers
    if isinstance(error, RequestValidationError):
        found = [f"{'.'.join(map(str, one['loc'][1:])) or one['loc'][0]}: {one['msg']}" for one in error.errors()]
        return _problem(422, InputError.code, "; ".join(found)), {}
    if isinstance(error, HTTPException):
        if isinstance(error.__cause__, NemoDs2Error):  # the framework wraps what is raised while it reads a body
            return problem_of(error.__cause__)
        code = CODES.get(error.status_code, "request")
        return _problem(error.status_code, code, str(error.detail)), dict(error.headers or {})
    return _problem(500, "error", "the service has failed; its log says how"), {}


def respond(error: Exception) -> JSONResponse:
    """The answer that an exception becomes."""
    problem, headers = problem_of(error)
    return JSONResponse(problem.model_dump(), problem.status, headers=headers, media_type=MEDIA_TYPE)


def add_problems(app: FastAPI) -> None:
    """Let the app answer with problem details whatever goes wrong."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        request.scope["problem"] = problem_of(error)[0].code  # for the log
        return respond(error)

    for kind in (NemoDs2Error, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: the refusals of an operation, beside those that all have."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    every = sorted({400, 401, 403, 408, 413, 422, 429, 503, *statuses})
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in every}


def _problem(status: int, code: str, detail: str, **more: Any) -> Problem:
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code, **more)
