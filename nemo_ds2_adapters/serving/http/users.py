"""People: their recordings, their adapter, and forgetting them."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, UploadFile
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from nemo_ds2_adapters.serving.base import Kind
from nemo_ds2_adapters.serving.http.callers import About, Serving
from nemo_ds2_adapters.serving.http.problems import responses
from nemo_ds2_adapters.serving.recordings import Recording
from nemo_ds2_adapters.serving.training.job import Job, State

router = APIRouter(prefix="/v1/users/{user}", tags=["people"])


class RecordingView(BaseModel):
    """A recording."""

    recording: int = Field(description="Its number.", examples=[1])
    text: str = Field(examples=["enter one two three"])
    seconds: float = Field(examples=[2.5])
    recorded: str = Field(description="ISO 8601.")

    @classmethod
    def of(cls, one: Recording) -> "RecordingView":
        """As clients see it."""
        return cls(recording=one.number, text=one.text, seconds=one.seconds, recorded=_time(one.recorded))


class NewRecording(RecordingView):
    """A recording that was kept."""

    findings: list[str] = Field(description="What may be wrong with it.", examples=[["clipped"]])


class JobView(BaseModel):
    """The training of one person's adapter."""

    id: str = Field(examples=["6f1ed002ab5595859014ebf0951522d9"])
    user: str
    state: State
    stage: str = Field(description="What is being done.", examples=["training"])
    share: float = Field(description="Of the work that is done, 0 to 1.", examples=[0.4])
    seconds_left: float | None = Field(description="As far as can be told.", examples=[6.0])
    created: str = Field(description="ISO 8601.")
    ended: str | None = None
    result: dict[str, Any] | None = Field(
        None,
        description="Of a job that is done: `kind` of what is kept (base, prior, adapted) and `reason`; `wer_before` "
        "and `wer_after`, fractions, the latter expected if `is_expected`; `epochs`; `utterances` and `seconds`.",
    )
    problem: dict[str, str] | None = Field(None, description="Of a job that has failed: `code` and `detail`.")

    @classmethod
    def of(cls, job: Job) -> "JobView":
        """As clients see it."""
        left = None if job.seconds_left is None else round(job.seconds_left, 1)
        own = {"state": job.state, "stage": job.stage, "share": round(job.share, 3), "seconds_left": left}
        times = {"created": _time(job.created), "ended": None if job.ended is None else _time(job.ended)}
        return cls(id=job.id, user=job.user, **own, **times, result=job.result, problem=job.problem)  # type: ignore[arg-type]


class UserView(BaseModel):
    """What the service keeps about a person."""

    user: str
    adapter_used: Kind = Field(description="What this person is recognised with now.")
    adapter: dict[str, Any] | None = Field(
        description="`version`, `stored`, `kind`, `reason`, `wer_before`, `wer_after`, `parameters`, `bytes`."
    )
    words: list[str] = Field(description="That decoding favours.")
    recordings: list[RecordingView]
    seconds: float = Field(description="Of recorded speech that is kept.")
    job: JobView | None = Field(description="The last training.")


class Words(BaseModel):
    """Names, terms and phrases of a person."""

    words: list[str] = Field(max_length=1000, examples=[["smyth", "new york"]])


class Erased(BaseModel):
    """A person was forgotten."""

    erased: bool = Field(description="Whether anything was known of them.")


@router.get("", responses=responses(404))
def about_user(service: Serving, user: About) -> UserView:
    """Everything that is kept about a person."""
    about = service.about(user)
    return UserView(
        user=user,
        adapter_used=about.adapter_used,
        adapter=about.adapter,
        words=list(about.words),
        recordings=[RecordingView.of(one) for one in about.recordings],
        seconds=sum(one.seconds for one in about.recordings),
        job=None if about.job is None else JobView.of(about.job),
    )


@router.delete("", responses=responses())
def erase_user(service: Serving, user: About) -> Erased:
    """Forget a person: adapter with all versions, words, recordings, trainings. Nothing of them remains."""
    return Erased(erased=service.erase(user))


@router.put("/words", responses=responses())
def put_words(service: Serving, user: About, given: Words) -> Words:
    """Replace the words that decoding favours for this person; none removes them."""
    return Words(words=list(service.put_words(user, given.words)))


@router.post("/recordings", status_code=201, responses=responses(415))
async def record(
    service: Serving,
    user: About,
    file: Annotated[UploadFile, File(description="WAV, FLAC, Ogg (Opus or Vorbis) or MP3.")],
    text: Annotated[str, Form(description="What is said, as the model writes it.", max_length=1000)],
) -> NewRecording:
    """Keep a recording for this person's adapter; one that was sent before is not kept twice."""
    samples = await run_in_threadpool(service.base.read, file.file)
    one, findings = await run_in_threadpool(service.record, user, samples, text)
    return NewRecording(**RecordingView.of(one).model_dump(), findings=findings)


@router.delete("/recordings/{recording}", status_code=204, responses=responses(404))
def remove_recording(service: Serving, user: About, recording: int) -> None:
    """Remove a recording."""
    service.remove_recording(user, recording)


@router.post("/adapter", status_code=202, responses=responses(409))
def train(service: Serving, user: About) -> JobView:
    """Train this person's adapter of the recordings that are kept; answers with a job at once."""
    return JobView.of(service.jobs.start(user))


@router.get(
    "/adapter",
    response_class=Response,
    responses={**responses(404), 200: {"content": {"application/octet-stream": {}}, "description": "A `.pt`."}},
)
def download(service: Serving, user: About) -> Response:
    """The person's adapter, as a file that `load_adapter` and NeMo's `load_adapters` read."""
    headers = {"Content-Disposition": 'attachment; filename="adapter.pt"'}
    return Response(service.adapter_file(user), media_type="application/octet-stream", headers=headers)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
