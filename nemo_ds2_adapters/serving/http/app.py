"""The service over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from nemo_ds2_adapters.serving.http import live, operation, transcriptions, users
from nemo_ds2_adapters.serving.http.callers import KnownCallers
from nemo_ds2_adapters.serving.http.middleware import KeepEncoded, Observed, OwnPagesOnly, UploadLimits
from nemo_ds2_adapters.serving.http.problems import Problem, add_problems
from nemo_ds2_adapters.serving.service import Service
from nemo_ds2_adapters.version import __version__

PAGE = Path(__file__).parents[1] / "page"
ABOUT = "Recognition with everybody's adapter, and adapters from recordings. Errors are problem details (RFC 9457)."


def create_app(service: Service) -> FastAPI:
    """The ASGI application of a service, which is closed when the application ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.close)

    # The pages that FastAPI makes of the OpenAPI document load scripts from elsewhere: there are none.
    app = FastAPI(
        title="nemo_ds2_adapters",
        version=__version__,
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.service = service
    add_problems(app)
    for part in (transcriptions, live, users, operation):
        app.include_router(part.router)
    settings = service.settings
    app.add_middleware(KeepEncoded)
    app.add_middleware(UploadLimits, max_bytes=settings.max_bytes, seconds=settings.upload_seconds)
    app.add_middleware(KnownCallers, service=service)
    app.add_middleware(OwnPagesOnly, origins=settings.allow_origin, loopback_only=not service.tokens)
    if settings.allow_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.allow_origin),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=[transcriptions.ADAPTER_HEADER, "Retry-After"],
        )
    app.add_middleware(Observed, metrics=service.metrics)
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True))
    _add_problem_schema(app)
    return app


def _add_problem_schema(app: FastAPI) -> None:
    """The schema that the operations' refusals refer to, in place of FastAPI's own."""
    document = app.openapi()
    schemas = document["components"]["schemas"]
    schemas["Problem"] = Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
