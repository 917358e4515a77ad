"""What a store promises at an object store: a real S3 server, which has no locks, but conditional writes."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.errors import AdapterFileError, InputError, StoreAccessError, UnknownUserError
from nemo_ds2_adapters.formats.file import write_adapters
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.store import folder
from nemo_ds2_adapters.store.store import AdapterStore
from tests.store.s3_writers import KILLS, ROUNDS, WRITERS


@pytest.fixture
def store(url: str) -> AdapterStore:
    return AdapterStore(url)


class Failing:
    """A client that answers as the real one, but for writing what ends so."""

    def __init__(self, client, suffix: str) -> None:
        self.client, self.suffix = client, suffix

    def __getattr__(self, name: str):
        return getattr(self.client, name)

    def put(self, path: str, *args, **kwargs):
        if path.endswith(self.suffix):
            raise ConnectionError("the network is gone")
        return self.client.put(path, *args, **kwargs)


def objects(url: str) -> list[str]:
    """Keys below a store's URL."""
    return [found["path"] for found in AdapterStore(url)._shelf.folder._store.list().collect()]


def send(method: str, url: str, data: bytes) -> None:
    """Change the server's ways."""
    urlopen(Request(url, data, {"Content-Type": "text/plain"}, method=method)).close()


def write_in_processes(task: str, url: str, adapter: Adapter, tmp_path: Path) -> str:
    write_adapters([adapter], tmp_path / "a.pt")
    command = [sys.executable, "-m", "tests.store.s3_writers", task, url, str(tmp_path / "a.pt")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_sixteen_writers_lose_nothing(url: str, adapter, tmp_path: Path) -> None:
    write_in_processes("together", url, adapter(), tmp_path)
    store = AdapterStore(url, create=False)
    assert sorted(store.list()) == sorted(["shared", *(f"user{writer}" for writer in range(WRITERS))])
    numbers = [version.number for version in store.versions("shared")]
    assert len(set(numbers)) == WRITERS * ROUNDS == len(numbers)  # each its own
    written = [store.get("shared", number).metadata for number in numbers]
    for writer in range(WRITERS):
        assert [each["count"] for each in written if each["writer"] == writer] == list(range(ROUNDS))
        assert [version.number for version in store.versions(f"user{writer}")] == list(range(1, ROUNDS + 1))
    report = store.verify()
    assert report.ok and report.repaired == [] and report.versions == 2 * WRITERS * ROUNDS
    assert not [key for key in objects(url) if key.endswith(".claim")]


def test_a_killed_writer_leaves_the_old_version_or_the_new_one(url: str, adapter, tmp_path: Path) -> None:
    said = json.loads(write_in_processes("killed", url, adapter(), tmp_path))
    assert len(said) == KILLS and said == sorted(said)
    store = AdapterStore(url, keep_versions=3)
    number = store.versions("a")[-1].number
    assert store.put("a", adapter()).number > number  # a dead writer's number is skipped
    assert len(store.versions("a")) == 3
    assert store.verify().ok
    assert [key for key in objects(url) if user_hash("a") in key] == [
        f"users/{user_hash('a')[:2]}/{user_hash('a')}/{version.file_name}" for version in store.versions("a")
    ]


def test_what_others_write_is_seen(url: str, adapter, value) -> None:
    mine, theirs = AdapterStore(url), AdapterStore(url)
    for number in (1.0, 2.0):
        assert list(mine.list()) == ([] if number == 1 else ["a"])
        theirs.put("a", adapter(number))
        assert value(mine.get("a")) == number
    assert mine.put_words("a", ["Xanten"]) == theirs.words("a") == ("Xanten",)
    theirs.erase("a")
    assert not mine.has("a") and list(mine.list()) == [] and mine.words("a") == ()


@pytest.mark.parametrize("conditional", [True, False])
def test_a_writer_that_listed_before_another_wrote(
    url: str, adapter, monkeypatch: pytest.MonkeyPatch, value, conditional: bool
) -> None:
    if not conditional:
        monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    one, two = AdapterStore(url), AdapterStore(url)
    late = two._shelf.folder
    listings = [late.names(user_hash("a"))]
    one.put("a", adapter(1.0))
    with monkeypatch.context() as patch:
        names = late.names
        patch.setattr(late, "names", lambda user: listings.pop() if listings else names(user))
        two.put("a", adapter(2.0))
    numbers = [version.number for version in one.versions("a")]
    assert numbers == ([1, 2] if conditional else [1, 1])
    assert value(one.get("a")) == 2 == value(one.get("a", numbers[-1]))  # both are kept, the later one is current
    assert one.put("a", adapter(3.0)).number == numbers[-1] + 1
    assert one.verify().ok and one.verify().versions == 3


@pytest.mark.parametrize("suffix", [".claim", ".safetensors"])
def test_a_put_that_fails_leaves_the_old_version_and_no_trace(url: str, adapter, value, suffix: str) -> None:
    store = AdapterStore(url)
    store.put("a", adapter(1.0))
    client = store._shelf.folder._store
    store._shelf.folder._store = Failing(client, suffix)
    for user_id in ("a", "b"):
        with pytest.raises(StoreAccessError, match=r"users/.*cannot be written \(the network is gone\)"):
            store.put(user_id, adapter(2.0))
    store._shelf.folder._store = client
    assert len(objects(url)) == 2
    assert value(store.get("a")) == 1 and list(store.list()) == ["a"]
    assert store.verify().ok and store.verify().repaired == []
    assert store.put("a", adapter(3.0)).number == 2


def test_a_dead_writers_claim_is_swept_and_erased(url: str, adapter) -> None:
    store = AdapterStore(url)
    for user_id in ("a", "b"):
        assert store._shelf.folder._create(f"users/{user_hash(user_id)[:2]}/{user_hash(user_id)}/000001.claim")
    assert store.verify().ok and not store.has("a") and list(store.list()) == []
    assert store.put("a", adapter()).number == 2
    assert store.erase("b")
    assert len(objects(url)) == 2 and store.verify().repaired == []


def test_headers_are_fetched_in_groups(store: AdapterStore, adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "AT_ONCE", 2)
    files = [(user_hash(user), store.put(user, adapter()).file_name) for user in ("a", "b", "c", "d", "e")]
    files.insert(2, (user_hash("nobody"), files[0][1]))
    found = list(store._shelf.folder.starts(files, 8))
    assert [start and len(start) for start in found] == [8, 8, None, 8, 8, 8]


def test_erase_leaves_no_object(store: AdapterStore, url: str, adapter) -> None:
    store.put("b", adapter())
    kept = objects(url)
    for _ in range(3):
        store.put("a", adapter())
    store.put_words("a", ["Xanten"])
    assert store.erase("a") and not store.erase("a")
    assert objects(url) == kept
    with pytest.raises(UnknownUserError):
        store.get("a")


def test_a_bucket_with_versioning_keeps_what_is_erased(s3_server: str, url: str, adapter) -> None:
    bucket = url.split("/")[2]
    versioning = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    send("PUT", f"{s3_server}/{bucket}?versioning", versioning)
    store = AdapterStore(url)
    store.put("a", adapter())
    store.erase("a")
    assert objects(url) == ["store.json"]
    with urlopen(f"{s3_server}/{bucket}?versions") as answer:  # which is why the documentation says to turn it off
        assert user_hash("a") in answer.read().decode()


def test_damage_is_found(store: AdapterStore, url: str, adapter) -> None:
    store.put("a", adapter())
    (key,) = [key for key in objects(url) if key.endswith(".safetensors")]
    client = store._shelf.folder._store
    client.put(key, client.get(key).bytes().to_bytes()[:-1])
    with pytest.raises(AdapterFileError, match="is damaged"):
        store.get("a")
    assert len(store.verify().problems) == 1


def test_a_bank_reads_it(store: AdapterStore, ds2, adapter) -> None:
    store.put("a", adapter(1.0))
    bank = AdapterBank(ds2, store, check_seconds=0.0)
    for number in (1, 2):
        resident = bank.hold("a")
        assert resident.version.number == number
        bank.let_go(resident)
        store.put("a", adapter(2.0))
    store.erase("a")
    with pytest.raises(UnknownUserError):
        bank.check_user("a")


def test_whether_it_can_be_written(store: AdapterStore, url: str) -> None:
    store.check_writable()
    assert objects(url) == ["store.json"]


def test_what_is_refused_in_one_line(url: str, s3_server: str, adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AdapterStore(url)
    store.put("a", adapter())
    calls = [lambda: list(store.list()), lambda: store.get("a"), lambda: store.put("a", adapter()), store.verify]
    send("POST", f"{s3_server}/moto-api/reset-auth", b"0")  # requests until the server asks who one is
    try:
        for call in [*calls, store.check_writable, lambda: AdapterStore(url)]:
            with pytest.raises(StoreAccessError, match=r"^s3://.*access denied: check the credentials[^\n]*$"):
                call()
    finally:
        send("POST", f"{s3_server}/moto-api/reset-auth", b"Infinity")
    for create in (True, False):
        with pytest.raises(StoreAccessError, match=r"^s3://missing/x/store.json: cannot be .*no such bucket[^\n]*$"):
            AdapterStore("s3://missing/x", create)
    with pytest.raises(InputError, match="there is no adapter store"):
        AdapterStore(f"{url}/elsewhere", create=False)
    with pytest.raises(InputError, match="not empty"):
        AdapterStore(url.rsplit("/", 1)[0])
    for wrong in ("sftp://host/x", "memory://x", "s3//x/y://"):
        with pytest.raises(InputError, match="expected a directory, or a URL that begins with s3://"):
            AdapterStore(wrong)
    with pytest.raises(InputError, match="^store s3://: Generic URL error: Unable to recognise URL"):
        AdapterStore("s3://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(InputError, match=r"AWS_ENDPOINT_URL=localhost:9000: expected a URL, such as http://localhost"):
        AdapterStore(url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreAccessError, match=r"store.json: cannot be read .*: check network and endpoint\)$"):
        AdapterStore(url)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(InputError, match=r"obstore is missing: pip install 'nemo_ds2_adapters\[s3\]'"):
        AdapterStore(url)


def test_how_many_requests_it_takes(store: AdapterStore, adapter) -> None:
    """As the documentation tells; at an object store they are what is paid for."""
    client, made = store._shelf.folder._store, Counter()

    class Counting:
        def __getattr__(self, name: str):
            made[name] += 1
            return getattr(client, name)

    store._shelf.folder._store = Counting()
    calls = [
        (lambda: store.put("a", adapter()), {"list": 2, "put": 2, "delete": 1}),
        (lambda: store.has("a"), {"list": 1}),
        (lambda: store.get("a"), {"list": 1, "get": 1}),
        (lambda: store.header("a"), {"list": 1, "get_range": 1}),
        (lambda: list(store.list()), {"list_with_delimiter": 1, "list": 1, "get_range": 1}),
        (lambda: store.erase("a"), {"list": 1, "delete": 1}),
    ]
    for call, expected in calls:
        made.clear()
        call()
        assert made == expected
