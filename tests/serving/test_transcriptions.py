"""Recognition over HTTP gives what `transcribe` gives, with everybody's own adapter."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import soundfile

from nemo_ds2_adapters import AdapterStore, transcribe
from nemo_ds2_adapters.adaptation.voice_prior.prior import read_prior
from nemo_ds2_adapters.adapters.adapter import zero
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from tests.serving.conftest import CHECKOUT, Person, Served
from tests.serving.conftest import transcribe as post


@pytest.fixture(scope="module")
def users(served: Served) -> dict[str, str]:
    """The adapter that each user has: `changed` one that shows, `unchanged` the base's, others none."""
    prior = read_prior(CHECKOUT / "demo" / "prior.pt").adapter
    store = AdapterStore(served.store)
    far = {point: {name: 3 * value for name, value in state.items()} for point, state in prior.weights.items()}
    store.put("changed", type(prior)(**{**vars(prior), "weights": far}))
    store.put("unchanged", zero(prior))
    return {"changed": "own", "unchanged": "own", "somebody": "population"}


def test_texts_are_those_of_transcribe(
    client: httpx.Client, served: Served, users: dict[str, str], people: list[Person]
) -> None:
    model = restore_model(str(CHECKOUT / "demo" / "base.nemo"), None).eval()
    prior = read_prior(CHECKOUT / "demo" / "prior.pt").adapter
    files = [path for person in people for path, _ in person.test]
    asked = [(path, user) for path in files for user in [*users, None]]
    wanted = transcribe(
        model,
        [str(path) for path, _ in asked],
        [user for _, user in asked],
        store=served.store,
        default=prior,
        progress=False,
    )
    assert len({text for (path, _), text in zip(asked, wanted) if path == files[0]}) > 1  # adapters show
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: post(client, one[0], **({"user": one[1]} if one[1] else {})), asked))
    assert [answer.json()["text"] for answer in answers] == wanted
    assert [answer.headers["x-adapter"] for answer in answers] == [users.get(user, "base") for _, user in asked]
    assert "ds2_adapters_batch_size_count" in client.get("/metrics").text


def test_nobodys_adapter_on_request(client: httpx.Client, users: dict[str, str], people: list[Person]) -> None:
    path = people[0].test[0][0]
    base = post(client, path)
    asked = post(client, path, user="changed", model="base")
    assert (asked.text, asked.headers["x-adapter"]) == (base.text, "base")
    assert post(client, path, user="changed").text != base.text


def test_formats_of_the_answer(client: httpx.Client, people: list[Person]) -> None:
    path, _ = people[0].test[0]
    text = post(client, path).json()["text"]
    assert post(client, path, response_format="text").text == f"{text}\n"
    verbose = post(client, path, response_format="verbose_json").json()
    assert (verbose["text"], verbose["adapter"], "words" in verbose) == (text, "base", False)
    assert verbose["duration"] == pytest.approx(soundfile.info(path).duration)
    assert " ".join(segment["text"] for segment in verbose["segments"]) == text
    words = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    found = post(client, path, **words).json()["words"]
    assert [word["word"] for word in found] == text.split()
    assert all(0 <= word["start"] <= word["end"] <= verbose["duration"] + 0.1 for word in found)


def test_long_recordings_are_cut_as_transcribe_cuts_them(client: httpx.Client, people: list[Person], tmp_path) -> None:
    sentences = [soundfile.read(path)[0] for person in people for path, _ in [*person.train, *person.test]]
    import numpy as np

    samples = np.concatenate(sentences * 3)[: 45 * 16000]
    soundfile.write(tmp_path / "long.flac", samples, 16000)
    model = restore_model(str(CHECKOUT / "demo" / "base.nemo"), None).eval()
    (wanted,) = transcribe(model, str(tmp_path / "long.flac"), progress=False)
    assert post(client, tmp_path / "long.flac").json()["text"] == wanted


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": "whisper-1"}, "model"),
        ({"response_format": "srt"}, "response_format"),
        ({"language": "en"}, "language: unknown"),
        ({"user": "x" * 201}, "201 characters"),
        ({"user": "nemo_ds2_adapters:voice_prior"}, "the store's own"),
    ],
)
def test_wrong_fields(client: httpx.Client, people: list[Person], fields: dict[str, str], reason: str) -> None:
    answer = post(client, people[0].test[0][0], **fields)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert reason in answer.json()["detail"]
