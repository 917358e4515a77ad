"""Trainings in progress, what to read aloud, and how the service does."""

import asyncio
from collections.abc import AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from nemo_ds2_adapters.serving.http.callers import Calling, Serving
from nemo_ds2_adapters.serving.http.problems import responses
from nemo_ds2_adapters.serving.http.users import JobView
from nemo_ds2_adapters.serving.prompts import choose_prompts
from nemo_ds2_adapters.serving.refusal import Refusal
from nemo_ds2_adapters.serving.training.job import Job
from nemo_ds2_adapters.version import __version__

EVENT_SECONDS = 0.25  # between looks at a job

router = APIRouter()


class Prompts(BaseModel):
    """Sentences to be read aloud."""

    prompts: list[str] = Field(description="To train with.", examples=[["enter one two three"]])
    tests: list[str] = Field(description="Others, to hear the difference by.", examples=[["go", "erase", "stop"]])


class Health(BaseModel):
    """How the service does."""

    status: str = Field(examples=["ok"])
    version: str
    sample_rate: int = Field(description="Of the model, Hz.", examples=[16000])
    has_prior: bool = Field(description="Whether a voice prior decides what people are served.")
    needs_token: bool
    keep_recordings: float | None = Field(
        description="Days that recordings are kept; 0: until an adapter was trained of them; null: for good."
    )
    max_seconds: float = Field(description="Of a recording.")


def job_of(service: Serving, caller: Calling, job: str) -> Job:
    """The job of a path.

    Raises:
        Refusal: there is none, or it is another user's.
    """
    found = service.jobs.get(job)
    if caller.user not in (None, found.user):
        raise Refusal(404, "unknown_job", "there is no such job of this user")
    return found


Asked = Annotated[Job, Depends(job_of)]


@router.get("/v1/jobs/{job}", responses=responses(404), tags=["people"])
def job_state(found: Asked) -> JobView:
    """How a training is going."""
    return JobView.of(found)


@router.get("/v1/jobs/{job}/events", response_class=EventSourceResponse, responses=responses(404), tags=["people"])
async def job_events(service: Serving, found: Asked) -> AsyncIterable[ServerSentEvent]:
    """Server-sent events: a job's state whenever it changes, until it is over; the last event is called `end`."""
    last = None
    while not service.stopping.is_set():
        view = JobView.of(found)
        if view != last:
            yield ServerSentEvent(data=view, event="end" if found.is_over else "progress")
        if found.is_over:
            return
        last = view
        await asyncio.sleep(EVENT_SECONDS)


@router.get("/v1/prompts", responses=responses(), tags=["people"])
def prompts(
    service: Serving,
    caller: Calling,
    count: Annotated[int, Query(ge=1, le=30)] = 10,
    tests: Annotated[int, Query(ge=0, le=10)] = 3,
    seed: Annotated[int, Query(ge=0, le=2**31, description="Another one, other sentences.")] = 0,
    skip: Annotated[int, Query(ge=0, le=100, description="How many of them were read before.")] = 0,
) -> Prompts:
    """Sentences that together have as many different sounds as can be, and others for a test."""
    chosen, others = choose_prompts(service.prompts, count, tests, seed, skip)
    return Prompts(prompts=chosen, tests=others)


@router.get("/v1/health", tags=["operation"])
def health(service: Serving) -> Health:
    """Whether the service is up, and what a client should know of it. Needs no token."""
    keep = service.settings.keep_recordings
    return Health(
        status="stopping" if service.stopping.is_set() else "ok",
        version=__version__,
        sample_rate=service.base.sample_rate,
        has_prior=service.settings.prior is not None,
        needs_token=bool(service.tokens),
        keep_recordings=None if keep == float("inf") else keep,
        max_seconds=service.settings.max_seconds,
    )


@router.get("/metrics", response_class=Response, responses=responses(), tags=["operation"])
def metrics(service: Serving, caller: Calling) -> Response:
    """For Prometheus. Needs a token for all users."""
    caller.check_all()
    return Response(service.metrics.text(service.recognition.metrics()), media_type=CONTENT_TYPE_LATEST)
