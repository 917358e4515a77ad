"""What is sent is limited: in bytes, in seconds of sound, in time, in number."""

import io
import socket
import struct
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import soundfile

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.serving.audio import read_upload
from nemo_ds2_adapters.serving.auth import RateLimit
from nemo_ds2_adapters.serving.batching import Waiting, similar
from nemo_ds2_adapters.serving.refusal import Refusal
from tests.serving.conftest import ALL, Served, transcribe

RATE = 16000
TEN_HOURS = 36_000  # seconds


def sound(seconds: float = 0.5, rate: int = RATE, channels: int = 1, **options: str) -> bytes:
    file = io.BytesIO()
    samples = np.random.default_rng(0).normal(scale=0.1, size=(round(seconds * rate), channels))
    soundfile.write(file, samples, rate, **{"format": "WAV", **options})
    return file.getvalue()


def claiming(seconds: int, rate: int = RATE) -> bytes:
    """A WAV of half a second whose header claims another length."""
    data = bytearray(sound())
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", 2 * rate * seconds)
    return bytes(data)


@pytest.mark.parametrize("options", [{}, {"format": "FLAC"}, {"format": "OGG", "subtype": "OPUS"}, {"format": "MP3"}])
def test_formats_that_are_taken(options: dict[str, str]) -> None:
    rate = 48000 if options.get("subtype") == "OPUS" else 44100
    samples = read_upload(io.BytesIO(sound(1.0, rate, 2, **options)), RATE, 10)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(RATE, abs=0.1 * RATE)


def test_a_wav_that_was_written_to_a_pipe() -> None:
    data = bytearray(sound())
    for name in (b"RIFF", b"data"):
        place = data.index(name) + 4
        data[place : place + 4] = b"\xff\xff\xff\xff"
    assert len(read_upload(io.BytesIO(bytes(data)), RATE, 10)) == RATE // 2


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 415),
        (b"RIFF", 415),
        (b"\x1aE\xdf\xa3 a web video", 415),
        (sound(format="AIFF"), 415),
        (sound(rate=2000), 415),
        (sound(channels=9), 415),
        (sound(12.0), 413),
        (sound(12.0, format="FLAC"), 413),
        (claiming(TEN_HOURS), 413),
    ],
    ids=["nothing", "cut off", "webm", "aiff", "slow rate", "channels", "long wav", "long flac", "claims ten hours"],
)
def test_sound_that_is_refused(content: bytes, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        read_upload(io.BytesIO(content), RATE, 10)
    assert caught.value.status == status


def test_sound_without_samples() -> None:
    with pytest.raises(InputError, match="no samples"):
        read_upload(io.BytesIO(sound(0.0)), RATE, 10)


def test_a_claim_is_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = claiming(TEN_HOURS)
    monkeypatch.setattr(soundfile, "SoundFile", lambda *_: pytest.fail("opened"))
    with pytest.raises(Refusal, match="longer than 10 s"):
        read_upload(io.BytesIO(content), RATE, 10)


def test_a_long_recording_over_http(client: httpx.Client) -> None:
    answer = client.post("/v1/audio/transcriptions", files={"file": claiming(TEN_HOURS)})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_long")


def head(host: str, length: int) -> bytes:
    """Of an upload of so many bytes."""
    return (
        f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {ALL}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def test_a_large_upload_is_refused_unread(served: Served) -> None:
    """1 GB is announced; the answer comes before any of it is sent."""
    with connected(served) as (connection, host):
        connection.sendall(head(host, 1_000_000_000))
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_a_large_upload_of_unknown_length(client: httpx.Client) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        while sent < 1_000_000_000:
            yield bytes(100_000)
            sent += 100_000

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    try:
        answer = client.post("/v1/audio/transcriptions", content=body(), headers=headers)
    except httpx.WriteError:  # the service has closed the connection
        pass
    else:
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert sent < 50_000_000


def test_a_slow_upload(served: Served) -> None:
    """A byte now and then; the service of these tests waits three seconds for a whole request."""
    with connected(served) as (connection, host):
        connection.sendall(head(host, 100_000) + b"--x\r\n")
        started = time.monotonic()
        connection.settimeout(0.2)
        answer = b""
        while not answer and time.monotonic() - started < 30:
            connection.sendall(b"a")
            try:
                answer = connection.recv(12)
            except TimeoutError:
                continue
        assert answer == b"HTTP/1.1 408"
        assert time.monotonic() - started > 2


@pytest.mark.slow
def test_a_slow_head(served: Served) -> None:
    """uvicorn itself would wait for ever."""
    with connected(served) as (connection, _):
        connection.settimeout(0.5)
        started = time.monotonic()
        while time.monotonic() - started < 40:
            try:
                connection.sendall(b"G")
                if connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("the connection is still open")
        assert time.monotonic() - started > 5


def test_too_many_requests() -> None:
    rate = RateLimit(3)
    for _ in range(3):
        rate.count("ann")
    with pytest.raises(Refusal) as caught:
        rate.count("ann")
    assert (caught.value.status, caught.value.code) == (429, "rate")
    assert 1 <= int(caught.value.headers["Retry-After"]) <= 60
    rate.count("bob")


def test_batches_are_of_similar_length_and_begin_with_the_first() -> None:
    lengths = [100, 400, 120, 90, 149, 160]
    waiting = [Waiting(np.zeros(length, np.float32), None) for length in lengths]
    assert [len(one.samples) for one in similar(waiting, 16)] == [100, 120, 90]
    assert [len(one.samples) for one in similar(waiting[1:], 16)] == [400]
    assert [len(one.samples) for one in similar(waiting, 2)] == [100, 120]


def test_wave_module_reads_the_claim() -> None:
    with wave.open(io.BytesIO(claiming(TEN_HOURS))) as file:
        assert file.getnframes() / file.getframerate() == TEN_HOURS


def test_short_sound_is_recognised(client: httpx.Client, tmp_path) -> None:
    (tmp_path / "short.wav").write_bytes(sound(0.001))
    assert transcribe(client, tmp_path / "short.wav").status_code == 200


@contextmanager
def connected(served: Served) -> Iterator[tuple[socket.socket, str]]:
    """A plain connection to a service, and its host name."""
    parts = urlsplit(served.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30) as connection:
        yield connection, parts.netloc
