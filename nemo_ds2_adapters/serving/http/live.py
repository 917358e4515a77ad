"""The WebSocket on which people speak."""

import asyncio
import time
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query, WebSocket
from starlette.concurrency import run_in_threadpool

from nemo_ds2_adapters.errors import InputError, NemoDs2Error
from nemo_ds2_adapters.serving.audio import RATES
from nemo_ds2_adapters.serving.base import Kind
from nemo_ds2_adapters.serving.http.callers import chosen_user, known_caller, sent_token, service_of
from nemo_ds2_adapters.serving.http.problems import problem_of
from nemo_ds2_adapters.serving.http.transcriptions import spoken_words
from nemo_ds2_adapters.serving.logs import log
from nemo_ds2_adapters.serving.refusal import Refusal
from nemo_ds2_adapters.serving.service import Service
from nemo_ds2_adapters.serving.talks import Mode, Talk

PARTIAL_SECONDS: dict[Mode, float] = {"stream": 0.1, "repeated": 1.0}  # between looks at the text so far
SILENT_SECONDS = 30.0  # without any samples, then the talk ends
PROTOCOL = "bearer"  # of a browser, which cannot send headers: protocols `bearer` and the token
CLOSED_OFFSET = 4000  # a refusal's close code is this and its status

router = APIRouter()


@router.websocket("/v1/stream")
async def stream(
    socket: WebSocket,
    user: str | None = None,
    model: Literal["personal", "base"] = "personal",
    sample_rate: Annotated[int | None, Query()] = None,
) -> None:
    """16-bit PCM in, partial and final results out, see docs/service.md."""
    service = service_of(socket)
    offered = [part.strip() for part in socket.headers.get("sec-websocket-protocol", "").split(",")]
    is_offered = len(offered) == 2 and offered[0] == PROTOCOL
    await socket.accept(PROTOCOL if is_offered else None)
    started, problem, talk = time.monotonic(), None, None
    try:
        kind, name = await _asked(service, socket, offered[1] if is_offered else None, user, model)
        rate = sample_rate or service.base.sample_rate
        if not RATES[0] <= rate <= RATES[1]:
            raise InputError(f"sample_rate={rate}: expected {RATES[0]} to {RATES[1]} Hz")
        talk = await service.recognition.open_talk(name, kind, rate)
        await socket.send_json({"type": "ready", "mode": talk.mode, "adapter": kind, "sample_rate": rate})
        if await _listen(service, socket, talk, rate):
            said = await talk.finish()
            final = {"type": "final", "text": said.text, "words": spoken_words(said), "adapter": kind}
            await socket.send_json(final)
            await socket.close()
    except NemoDs2Error as error:
        details, _ = problem_of(error)
        problem = details.code
        await socket.send_json({**details.model_dump(), "type": "error"})
        await socket.close(CLOSED_OFFSET + details.status)
    finally:
        if talk is not None:
            service.recognition.close_talk(talk)
        mode = talk.mode if talk else None
        log("stream", mode=mode, seconds=round(time.monotonic() - started, 3), problem=problem)


async def _asked(
    service: Service, socket: WebSocket, token: str | None, user: str | None, model: str
) -> tuple[Kind, str | None]:
    """Which adapter is to be used, and whose."""
    user = chosen_user(known_caller(service, socket, sent_token(socket) or token), user, model)
    return await run_in_threadpool(service.base.adapter_of, user), user


async def _listen(service: Service, socket: WebSocket, talk: Talk, rate: int) -> bool:
    """Take samples until the client finishes, or the service stops; False: the client has gone."""
    most, samples = service.settings.max_seconds * rate, 0
    heard = shown = time.monotonic()
    message = asyncio.create_task(socket.receive())
    try:
        while not service.stopping.is_set():
            done, _ = await asyncio.wait({message}, timeout=PARTIAL_SECONDS["stream"])
            if done:
                received = message.result()
                if received["type"] == "websocket.disconnect":
                    return False
                if received.get("bytes") is None:
                    if received.get("text") == "finish":
                        return True
                    raise InputError("expected 16-bit PCM, or the text finish")
                new = _pcm(received["bytes"])
                talk.feed(new)
                samples, heard = samples + len(new), time.monotonic()
                if samples > most:
                    raise Refusal(413, "too_long", f"more than {service.settings.max_seconds:g} s in one talk")
                message = asyncio.create_task(socket.receive())
            if time.monotonic() - heard > SILENT_SECONDS:
                raise Refusal(408, "slow", f"no samples for {SILENT_SECONDS:g} s")
            if time.monotonic() - shown >= PARTIAL_SECONDS[talk.mode]:
                if (partial := await talk.partial()) is not None:
                    text = {"text": partial.text, "stable": partial.stable, "unstable": partial.unstable}
                    await socket.send_json({"type": "partial", **text})
                shown = time.monotonic()
        return True
    finally:
        message.cancel()


def _pcm(data: bytes) -> np.ndarray:
    if len(data) % 2:
        raise InputError(f"{len(data)} bytes are no 16-bit samples")
    return np.frombuffer(data, "<i2").astype(np.int16)
