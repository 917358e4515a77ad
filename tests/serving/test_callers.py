"""Who may do what: tokens for all and for one, pages of other sites, ids that look like paths."""

from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.serving.auth import Tokens, read_tokens
from nemo_ds2_adapters.serving.http.server import bind, check_exposure
from nemo_ds2_adapters.serving.refusal import Refusal
from nemo_ds2_adapters.serving.settings import ServiceSettings
from tests.serving.conftest import ANN, CHECKOUT, Person, Served, finished, left_of, path_of, record, transcribe

CALLS = [
    ("POST", "/v1/audio/transcriptions"),
    ("POST", "/v1/transcriptions"),
    ("GET", "/v1/users/bob"),
    ("DELETE", "/v1/users/bob"),
    ("POST", "/v1/users/bob/recordings"),
    ("DELETE", "/v1/users/bob/recordings/1"),
    ("POST", "/v1/users/bob/adapter"),
    ("PUT", "/v1/users/bob/words"),
    ("GET", "/v1/users/bob/adapter"),
    ("GET", "/v1/jobs/0123"),
    ("GET", "/v1/jobs/0123/events"),
    ("GET", "/v1/prompts"),
    ("GET", "/metrics"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_nothing_without_a_token(served: Served, method: str, path: str) -> None:
    files = {"file": b"RIFF"} if method == "POST" else None
    with served.client() as nobody, served.client("guessed-0123456789") as guesser:
        for client in (nobody, guesser):
            answer = client.request(method, path, files=files, data={"text": "yes"} if files else None)
            assert (answer.status_code, answer.json()["code"]) == (401, "token")
            assert answer.headers["www-authenticate"] == "Bearer"


def test_a_token_for_one(served: Served, client: httpx.Client, people: list[Person]) -> None:
    path = people[0].test[0][0]
    record(client, "bob", people[0].train[:2])
    with served.client(ANN) as ann:
        assert transcribe(ann, path).headers["x-adapter"] == "population"  # of ann, who has none of her own
        assert transcribe(ann, path, user="ann").status_code == 200
        assert ann.get(path_of("ann")).status_code == 404
        assert ann.get("/v1/prompts").status_code == 200
        for method, call in [*CALLS[2:9], ("GET", "/metrics")]:
            files = {"file": path.read_bytes()} if call.endswith("recordings") else None
            answer = ann.request(method, call, files=files, data={"text": "yes"} if files else None)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), call
        answer = transcribe(ann, path, user="bob")
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert len(client.get(path_of("bob")).json()["recordings"]) == 2
    client.delete(path_of("bob"))


@pytest.mark.slow
def test_another_users_job(served: Served, client: httpx.Client, people: list[Person]) -> None:
    record(client, "bob", people[0].train[:2])
    job = client.post(f"{path_of('bob')}/adapter").json()["id"]
    with served.client(ANN) as ann:
        for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/events"):
            assert ann.get(path).json()["code"] == "unknown_job"
    finished(client, job)
    client.delete(path_of("bob"))


@pytest.mark.parametrize(
    "user", ["..", "../../etc/passwd", "a/b", "/", "\\..\\x", "%2e%2e", "a\x00b", "x" * 200, "홍길동", ".tmp", "cache"]
)
def test_a_user_id_is_no_path(served: Served, client: httpx.Client, people: list[Person], user: str) -> None:
    around = {path for path in served.folder.rglob("*") if served.store / "users" not in path.parents}
    before = left_of(served.store)
    encoded = "".join(f"%{byte:02X}" for byte in user.encode())
    url = httpx.URL(served.url).copy_with(raw_path=f"/v1/users/{encoded}".encode())
    path, text = people[0].train[0]
    recordings = url.copy_with(raw_path=url.raw_path + b"/recordings")
    answer = client.post(recordings, files={"file": path.read_bytes()}, data={"text": text})
    assert answer.status_code == 201, answer.text
    assert client.get(url).json()["user"] == user
    found = {path for path in served.folder.rglob("*") if served.store / "users" not in path.parents}
    assert {path for path in found - around if path.suffix != ".lock"} == set()
    assert client.delete(url).json() == {"erased": True}
    assert left_of(served.store) == before


@pytest.mark.parametrize("encoded", ["%ff", "%ed%a0%80", "x" * 201, "nemo_ds2_adapters%3Avoice_prior"])
def test_what_is_no_user_id(client: httpx.Client, encoded: str) -> None:
    for method in ("GET", "DELETE"):
        answer = client.request(method, f"/v1/users/{encoded}")
        assert (answer.status_code, answer.json()["code"]) == (422, "user_id")


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2fapp.py", "/app.py"])
def test_the_page_is_no_way_to_other_files(served: Served, path: str) -> None:
    with served.client() as nobody:
        answer = nobody.get(httpx.URL(served.url).copy_with(raw_path=path.encode()))
    assert answer.status_code == 404


def test_pages_of_other_sites(served: Served, client: httpx.Client) -> None:
    answer = client.get("/v1/prompts", headers={"Origin": "https://elsewhere.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "origin")
    assert "access-control-allow-origin" not in client.get("/v1/prompts", headers={"Origin": served.url}).headers


def test_token_files(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# of the product\n{'a' * 20}\n\n{'b' * 20} ann smith\n")
    tokens = read_tokens(path)
    assert (tokens.caller("a" * 20, "").user, tokens.caller("b" * 20, "").user) == (None, "ann smith")
    for token in (None, "", "c" * 20, "b" * 20 + " ann smith", "\udcff"):
        with pytest.raises(Refusal):
            tokens.caller(token, "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [("short", "line 1"), (f"{'a' * 20}\n{'a' * 20} ann", "line 2"), ("", "no token"), ("ä" * 20, "line 1")],
)
def test_wrong_token_files(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(content)
    with pytest.raises(InputError, match=reason):
        read_tokens(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_tokens(tmp_path / "nothing")


def test_without_tokens_for_this_machine_alone(tmp_path: Path) -> None:
    settings = ServiceSettings(CHECKOUT / "demo" / "base.nemo", tmp_path, host="0.0.0.0")
    with pytest.raises(InputError, match="--token-file"):
        check_exposure(settings, Tokens({}))
    check_exposure(settings, Tokens({"a" * 20: None}))


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    settings = ServiceSettings(CHECKOUT / "demo" / "base.nemo", tmp_path, port=0)
    with bind(settings) as one:
        one.listen()
        with pytest.raises(InputError, match="in use"):
            bind(replace(settings, port=one.getsockname()[1]))


@pytest.mark.parametrize(
    ("option", "value"),
    [("port", 70000), ("batch_size", 0), ("keep_recordings", -1.0), ("max_seconds", 0.0), ("allow_origin", ("x",))],
)
def test_wrong_settings(tmp_path: Path, option: str, value: object) -> None:
    with pytest.raises(InputError, match=f"--{option.replace('_', '-')}"):
        ServiceSettings(CHECKOUT / "demo" / "base.nemo", tmp_path, **{option: value})
