"""What each command has imported when it is done: NeMo takes ten seconds, PyTorch one or two."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_ds2_adapters.adapters.adapter import with_metadata
from nemo_ds2_adapters.adapters.users import adapter_name_for_user
from nemo_ds2_adapters.formats.reading import read_adapters
from nemo_ds2_adapters.store.store import AdapterStore

FILE = Path(__file__).parents[1] / "data" / "v0_1" / "two_adapters.pt"
PROGRAM = """
import json
import sys
from nemo_ds2_adapters.cli import main

for call in json.loads(sys.argv[1]):
    try:
        main(call)
    except SystemExit as end:
        assert not end.code, (call, end.code)
    print(*(name for name in ("nemo", "torch") if name in sys.modules), file=sys.stderr)
"""


def imported_by(*calls: list[object]) -> set[str]:
    """Which of NeMo and PyTorch some commands have imported, one after the other in one process."""
    command = [sys.executable, "-c", PROGRAM, json.dumps([[str(argument) for argument in call] for call in calls])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two users."""
    path = tmp_path_factory.mktemp("store")
    for name, adapter in read_adapters(FILE).items():
        AdapterStore(path).put(name, with_metadata(adapter, {}))
    return path


@pytest.fixture(scope="module")
def users(store: Path) -> list[str]:
    return sorted(AdapterStore(store).list())


def test_help_and_what_needs_no_model_import_neither(store: Path, users: list[str], tmp_path: Path) -> None:
    names, adapter = list(read_adapters(FILE)), adapter_name_for_user(users[0])
    calls = [
        ["--help"],
        ["train", "--help"],
        ["export", "--help"],
        ["list", store],
        ["list", FILE],
        ["inspect", store, users[0]],
        ["inspect", FILE, names[0]],
        ["verify", store, FILE],
        ["copy", store, users[0], "one"],
        ["average", store, users[0], "one", "--into", "mean"],
        ["export", store, users[0], tmp_path / "a.pt"],
        ["import", store, tmp_path / "a.pt", "--as", users[0]],
        ["export", FILE, names[0], tmp_path / "b.pt", "--format", "nemo"],
        ["copy", tmp_path / "a.pt", adapter, "user_one"],
        ["average", tmp_path / "a.pt", adapter, "user_one", "--into", "user_mean"],
        ["rename", tmp_path / "a.pt", "user_mean", "user_two"],
        ["delete", tmp_path / "a.pt", "user_two", "--yes"],
        ["rename", store, "one", "two"],
        ["copy", store, users[0], "three"],
        ["delete", store, "two", "--yes"],
        ["delete", store, "three", "--erase", "--yes"],
        ["delete", store, "mean", "--yes"],
    ]
    assert imported_by(*calls) == set()
    assert AdapterStore(store).verify().ok
