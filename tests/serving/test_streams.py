"""Recognition while somebody speaks, on a WebSocket."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import DictConfig
from starlette.testclient import TestClient
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from nemo_ds2_adapters.formats.nemo_archive import save_nemo
from nemo_ds2_adapters.serving.auth import Tokens
from nemo_ds2_adapters.serving.base import ServedBase
from nemo_ds2_adapters.serving.http.app import create_app
from nemo_ds2_adapters.serving.recognition import LocalRecognition
from nemo_ds2_adapters.serving.service import Service
from nemo_ds2_adapters.serving.settings import ServiceSettings
from nemo_ds2_adapters.streaming.recogniser import Recogniser
from tests.conftest import MEL_BANDS, randomise
from tests.serving.conftest import ALL, ANN, Person, Served, transcribe

RATE = 16000
FRAME = 3200  # samples of a message


def url(served: Served, query: str = "") -> str:
    return f"{served.url.replace('http', 'ws')}/v1/stream{query}"


def pcm(path: Path) -> bytes:
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE
    return samples.tobytes()


def spoken(socket: Any, data: bytes) -> list[dict[str, Any]]:
    """What the service says to speech in messages, and its end."""
    for start in range(0, len(data), 2 * FRAME):
        socket.send(data[start : start + 2 * FRAME])
    socket.send("finish")
    said = []
    try:
        while True:
            said.append(json.loads(socket.recv(timeout=60)))
    except ConnectionClosed as closed:
        said.append({"type": "closed", "code": closed.rcvd.code if closed.rcvd else None})
    return said


@pytest.mark.parametrize("by_header", [True, False])
def test_what_is_said_is_what_the_recording_gives(
    served: Served, client: Any, people: list[Person], by_header: bool
) -> None:
    path = people[0].test[0][0]
    options: dict[str, Any] = {"subprotocols": ["bearer", ANN]}
    if by_header:
        options = {"additional_headers": {"Authorization": f"Bearer {ANN}"}}
    with connect(url(served), **options) as socket:
        assert socket.subprotocol == (None if by_header else "bearer")
        ready, *_, final, closed = spoken(socket, pcm(path))
    assert ready == {"type": "ready", "mode": "repeated", "adapter": "population", "sample_rate": RATE}
    wanted = transcribe(client, path, user="ann").json()["text"]
    assert (final["type"], final["text"], final["adapter"]) == ("final", wanted, "population")
    assert [word["word"] for word in final["words"]] == wanted.split()
    assert closed["code"] == 1000


@pytest.mark.parametrize(
    ("query", "token", "sent", "status", "code"),
    [
        ("", None, b"", 401, "token"),
        ("?user=bob", ANN, b"", 403, "forbidden"),
        ("?user=" + "x" * 201, ALL, b"", 422, "user_id"),
        ("?sample_rate=1", ALL, b"", 422, "input"),
        ("", ALL, b"\x00", 422, "input"),
        ("", ALL, "stop", 422, "input"),
        ("?sample_rate=4000", ALL, bytes(2 * 4000 * 61), 413, "too_long"),
    ],
)
def test_what_is_refused(served: Served, query: str, token: str | None, sent: Any, status: int, code: str) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with connect(url(served, query), additional_headers=headers) as socket:
        said = json.loads(socket.recv(timeout=60))
        if said["type"] == "ready":
            for start in range(0, len(sent), 100_000):
                socket.send(sent[start : start + 100_000])
            said = json.loads(socket.recv(timeout=60))
        while said["type"] == "partial":
            said = json.loads(socket.recv(timeout=60))
        assert (said["type"], said["status"], said["code"]) == ("error", status, code)
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(timeout=60)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 4000 + status


def test_a_page_of_another_site(served: Served) -> None:
    with pytest.raises(Exception, match="403"), connect(url(served), origin="https://elsewhere.example"):  # type: ignore
        pass


def test_a_model_that_streams(model_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    cfg = model_config(encoder={"bidirectional": False, "lookahead_context": 3, "d_model": 6})
    cfg.preprocessor.update(
        {
            "_target_": "nemo_ds2_adapters.modules.StreamingMelPreprocessor",
            "normalize": None,
            "feature_mean": [-6.0] * MEL_BANDS,
            "feature_std": [2.0] * MEL_BANDS,
        }
    )
    model = EncDecCTCModel(cfg=cfg)
    randomise(model)
    with torch.no_grad():
        model.decoder.output.weight.mul_(12.0)
    save_nemo(model, tmp_path / "model.nemo")
    noise = (3000 * np.random.default_rng(0).standard_normal(3 * RATE)).astype(np.int16)
    stream = Recogniser(model.eval()).open()
    stream.feed(noise)
    wanted = stream.finish().text
    assert wanted.strip()

    base = ServedBase(ServiceSettings(tmp_path / "model.nemo", tmp_path / "store"))
    service = Service(base, LocalRecognition(base), Tokens({}))
    with (
        TestClient(create_app(service), base_url="http://127.0.0.1") as client,
        client.websocket_connect("ws://127.0.0.1/v1/stream?user=ann") as socket,
    ):
        ready = socket.receive_json()
        assert (ready["mode"], ready["adapter"]) == ("stream", "base")
        partials = []
        for start in range(0, len(noise), FRAME):
            socket.send_bytes(noise[start : start + FRAME].tobytes())
        socket.send_text("finish")
        while (said := socket.receive_json())["type"] == "partial":
            partials.append(said)
        assert (said["type"], said["text"]) == ("final", wanted)
    for partial in partials:
        assert partial["text"] == partial["stable"] + partial["unstable"]
        assert wanted.startswith(partial["stable"].rstrip())
