"""From recordings to an adapter, and back to nothing."""

import json
import time

import httpx
import numpy as np
import pytest
import soundfile
import torch

from nemo_ds2_adapters import AdapterStore, inspect_adapter
from tests.serving.conftest import Person, Served, finished, left_of, path_of, record, transcribe


@pytest.mark.slow
def test_ten_minutes_of_a_person(
    client: httpx.Client, served: Served, people: list[Person], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records, trains, is recognised with the adapter at once, downloads it, is forgotten."""
    user, person, before = "a/b ../é", people[0], left_of(served.store)
    record(client, user, person.train)
    about = client.get(path_of(user)).json()
    assert [one["text"] for one in about["recordings"]] == [text for _, text in person.train]
    assert about["seconds"] == pytest.approx(sum(soundfile.info(path).duration for path, _ in person.train), abs=0.01)
    assert (about["adapter"], about["adapter_used"]) == (None, "population")

    answer = client.post(f"{path_of(user)}/adapter")
    assert answer.status_code == 202
    events = []
    with client.stream("GET", f"/v1/jobs/{answer.json()['id']}/events", timeout=300) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            kind, _, data = line.partition(": ")
            if kind in ("event", "data"):
                events.append(data if kind == "event" else json.loads(data))
    names, views = events[::2], events[1::2]
    assert {*names[:-1]} == {"progress"} and names[-1] == "end"
    shares = [view["share"] for view in views]
    assert shares == sorted(shares) and shares[-1] == 1
    assert views[-1] == client.get(f"/v1/jobs/{answer.json()['id']}").json()
    result = views[-1]["result"]
    assert (views[-1]["state"], result["utterances"]) == ("done", len(person.train)), views[-1]
    assert result["kind"] in ("prior", "adapted")

    assert transcribe(client, person.test[0][0], user=user).headers["x-adapter"] == "own"
    about = client.get(path_of(user)).json()
    assert about["recordings"] == []  # they are not kept
    assert about["adapter"]["kind"] == result["kind"]
    (tmp_path / "adapter.pt").write_bytes(client.get(f"{path_of(user)}/adapter").content)
    assert inspect_adapter(tmp_path / "adapter.pt")["adapters"]
    torch.load(tmp_path / "adapter.pt", weights_only=True)
    stored = AdapterStore(served.store).get(user)
    assert stored.metadata["user_id"] == user

    assert client.delete(path_of(user)).json() == {"erased": True}
    assert left_of(served.store) == before
    assert transcribe(client, person.test[0][0], user=user).headers["x-adapter"] == "population"
    for path in ("", "/adapter"):
        answer = client.get(f"{path_of(user)}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_user")
    assert client.get(f"/v1/jobs/{views[-1]['id']}").json()["code"] == "unknown_job"
    assert client.delete(path_of(user)).json() == {"erased": False}
    assert user not in served.log and person.train[0][1] not in served.log


@pytest.mark.slow
def test_erased_in_the_middle_of_a_training(client: httpx.Client, served: Served, people: list[Person]) -> None:
    before = left_of(served.store)
    record(client, "eve", people[1].train)
    job = client.post(f"{path_of('eve')}/adapter").json()["id"]
    while client.get(f"/v1/jobs/{job}").json()["state"] == "queued":
        time.sleep(0.05)
    again = client.post(f"{path_of('eve')}/adapter")
    assert (again.status_code, again.json()["code"], again.json()["job"]) == (409, "job_running", job)
    assert client.delete(path_of("eve")).json() == {"erased": True}
    assert left_of(served.store) == before
    record(client, "bob", people[1].train)  # the next one is trained, by another process
    assert finished(client, client.post(f"{path_of('bob')}/adapter").json()["id"])["state"] == "done"
    assert client.get(path_of("eve")).status_code == 404
    assert client.delete(path_of("bob")).json() == {"erased": True}
    assert left_of(served.store) == before


def test_recordings_come_and_go(client: httpx.Client, people: list[Person]) -> None:
    user = path_of("carla")
    record(client, "carla", people[0].train[:2])
    record(client, "carla", people[0].train[:2])  # sent again
    assert [one["recording"] for one in client.get(user).json()["recordings"]] == [1, 2]
    assert client.delete(f"{user}/recordings/1").status_code == 204
    assert client.delete(f"{user}/recordings/1").json()["code"] == "unknown_recording"
    assert [one["recording"] for one in client.get(user).json()["recordings"]] == [2]
    answer = client.post(f"{user}/adapter")
    assert (answer.status_code, answer.json()["detail"][:12]) == (422, "1 recordings")
    assert client.delete(f"{user}/recordings/2").status_code == 204
    assert client.get(user).status_code == 404
    assert client.delete(user).json() == {"erased": True}  # the empty folder


@pytest.mark.parametrize(
    ("text", "sound", "reason"),
    [
        ("", "speech", "text"),
        ("  ", "speech", "empty"),
        ("12 Ä", "speech", "vocabulary"),
        ("yes", "silence", "silent"),
        ("yes " * 200, "speech", "longer than its frames allow"),
    ],
)
def test_what_nothing_can_be_learnt_from(
    client: httpx.Client, served: Served, people: list[Person], tmp_path, text: str, sound: str, reason: str
) -> None:
    path = people[0].train[0][0]
    if sound == "silence":
        path = tmp_path / "silence.wav"
        soundfile.write(path, np.zeros(16000), 16000)
    before = left_of(served.store)
    answer = client.post(f"{path_of('dora')}/recordings", files={"file": path.read_bytes()}, data={"text": text})
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]
    assert left_of(served.store) == before
