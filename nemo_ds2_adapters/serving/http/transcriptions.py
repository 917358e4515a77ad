"""Recognition of uploaded recordings, shaped after OpenAI's audio API."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
from pydantic import BaseModel, Field

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.serving.base import Kind
from nemo_ds2_adapters.serving.http.callers import Calling, Serving, chosen_user
from nemo_ds2_adapters.serving.http.problems import responses

FIELDS = ("file", "user", "words", "model", "response_format", "timestamp_granularities[]")
ADAPTER_HEADER = "X-Adapter"  # what the speech was recognised with: own, population or base

router = APIRouter(tags=["recognition"])


class Word(BaseModel):
    """A word, and when it is said, in seconds."""

    word: str
    start: float
    end: float


class Segment(BaseModel):
    """A stretch of speech, in seconds."""

    id: int
    text: str
    start: float
    end: float


class Transcription(BaseModel):
    """What is said; all but `text` in `verbose_json` only."""

    text: str = Field(examples=["enter one two three"])
    task: Literal["transcribe"] | None = None
    duration: float | None = Field(None, description="Seconds.")
    adapter: Kind | None = Field(None, description="What it was recognised with.")
    words: list[Word] | None = None
    segments: list[Segment] | None = None


def spoken_words(hypothesis: Hypothesis) -> list[dict[str, Any]]:
    """The words of a recording, as `Word` has them."""
    return [{key: word[key] for key in Word.model_fields} for word in hypothesis.timestamp["word"]]


async def known_fields(request: Request) -> None:
    """Refuse fields that would be ignored. Raises InputError: names them."""
    unknown = sorted(set(await request.form()) - set(FIELDS))
    if unknown:
        raise InputError(f"{', '.join(unknown)[:200]}: unknown, expected {', '.join(FIELDS)}")


ROUTE: dict[str, Any] = {
    "response_model": Transcription,
    "response_model_exclude_none": True,
    "responses": responses(404, 409, 415),
    "dependencies": [Depends(known_fields)],
}


@router.post("/v1/audio/transcriptions", **ROUTE)
@router.post("/v1/transcriptions", include_in_schema=False, **ROUTE)  # another name of the same
async def transcribe(
    service: Serving,
    caller: Calling,
    file: Annotated[UploadFile, File(description="WAV, FLAC, Ogg (Opus or Vorbis) or MP3.")],
    user: Annotated[str | None, Form(description="Whose adapter; without, the base.")] = None,
    words: Annotated[
        list[str] | None, Form(description="Names and terms that are likely, each a field; without, the user's own.")
    ] = None,
    model: Annotated[
        Literal["personal", "base"], Form(description="`base`: nobody's adapter and words, whoever the user is.")
    ] = "personal",
    response_format: Annotated[Literal["json", "text", "verbose_json"], Form()] = "json",
    granularities: Annotated[
        list[Literal["word", "segment"]] | None,
        Form(alias="timestamp_granularities[]", description="Of `verbose_json`; `segment` by default."),
    ] = None,
) -> Response:
    """Recognise a recording, with the user's adapter if there is one; the header `X-Adapter` says with which.

    Somebody without an adapter is recognised with the population's, if the service has a voice prior, else the base.
    """
    user = chosen_user(caller, user, model)
    is_verbose = response_format == "verbose_json"
    recognised = await service.recognition.transcribe(file.file, user, words, timestamps=is_verbose)
    hypothesis = recognised.hypothesis
    headers = {ADAPTER_HEADER: recognised.kind}
    if response_format == "text":
        return PlainTextResponse(hypothesis.text + "\n", headers=headers)
    content: dict[str, Any] = {"text": hypothesis.text}
    if is_verbose:
        spans = hypothesis.timestamp
        content |= {"task": "transcribe", "duration": recognised.seconds, "adapter": recognised.kind}
        if "word" in (granularities or []):
            content["words"] = spoken_words(hypothesis)
        if "segment" in (granularities or ["segment"]):
            content["segments"] = [
                {"id": number, "text": one["segment"], "start": one["start"], "end": one["end"]}
                for number, one in enumerate(spans["segment"])
            ]
    return JSONResponse(content, headers=headers)
