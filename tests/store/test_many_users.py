"""Among many users, a call looks at as little as among few. (How long that takes, benchmarks/store.py measures.)"""

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.store.store import AdapterStore

FEW, MANY = 10, 2000
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "store.py"
LOOKS = ("open", "os.listdir", "os.scandir")  # audit events; their first argument is a path

Look = tuple[str, Path]


@pytest.fixture(scope="module")
def looks_of() -> Iterator[Callable[[Callable[[], object]], list[Look]]]:
    """Runs a task and tells what files it opened and what directories it listed, in order."""
    recorded: list[list[Look]] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if recorded and event in LOOKS and isinstance(arguments[0], str | Path):
            recorded[-1].append((event, Path(arguments[0])))

    sys.addaudithook(hook)  # for good: Python has no way to remove one

    def run(task: Callable[[], object]) -> list[Look]:
        recorded.append([])
        task()
        return recorded.pop()

    yield run
    recorded.clear()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By the number of their users: two stores, filled by the benchmark, with ids as `user_id_of` makes them."""
    benchmark = runpy.run_path(str(BENCHMARK))
    assert benchmark["user_id_of"](0) == user_id_of(0)
    folders = {}
    for users in (FEW, MANY):
        folders[users] = tmp_path_factory.mktemp("stores") / "store"
        benchmark["Filler"](folders[users], benchmark["adapter_of"]([4, 2, 4])).fill(0, users)
    return folders


def user_id_of(number: int) -> str:
    return f"user{number:07d}@example.com"


@pytest.mark.parametrize("users", [FEW, MANY])
def test_looking_up_touches_the_users_own_folder_alone(stores, looks_of, users: int) -> None:
    store, user_id = AdapterStore(stores[users]), user_id_of(users - 1)
    user = user_hash(user_id)
    own = stores[users] / "users" / user[:2] / user
    (version,) = store.versions(user_id)
    assert len(list(own.iterdir())) == 1
    assert looks_of(lambda: store.has(user_id)) == [("os.listdir", own)]
    assert looks_of(lambda: store.get(user_id)) == [("os.listdir", own), ("open", own / version.file_name)]
    assert len(looks_of(lambda: store.has("a stranger"))) <= 1
    assert store.get(user_id).metadata["user_id"] == user_id


def test_listing_streams_and_opens_one_file_per_user(stores, looks_of) -> None:
    store = AdapterStore(stores[MANY])
    user_ids = store.list()
    listed: list[str] = []
    first = looks_of(lambda: listed.append(next(user_ids)))
    assert 1 < len(first) < MANY / 50  # the users of one shard of 256
    rest = looks_of(lambda: listed.extend(user_ids))
    opened = [path for event, path in first + rest if event == "open"]
    assert len(opened) == len(set(opened)) == MANY and {path.suffix for path in opened} == {".safetensors"}
    assert sorted(listed) == [user_id_of(number) for number in range(MANY)]


def bytes_read() -> int:
    """By this process until now."""
    (line,) = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar:")]
    return int(line.split()[1])


def test_what_needs_no_weights_reads_none(tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    adapter = runpy.run_path(str(BENCHMARK))["adapter_of"]([1000, 1000])
    store.put("a", adapter, metadata={"hours": 2})
    before = bytes_read()
    (entry,) = store.entries()
    header = store.header("a")
    assert bytes_read() - before < 100_000 < entry.size
    assert (entry.parameters, entry.size) == (header.parameters, header.size) == (1_001_000, entry.size)
    assert entry.size == sum(path.stat().st_size for path in (tmp_path / "store").rglob("*.safetensors"))
    assert header.info.metadata == {"hours": 2, "user_id": "a"} and header.config == adapter.config
    assert (header.name, header.info) == (store.get("a").name, store.get("a").info)
