"""What each command has imported when it is done: NeMo takes ten seconds, PyTorch one or two."""

import subprocess
import sys
from pathlib import Path

import pytest

from nemo_ds2_adapters.formats.reading import read_adapters
from nemo_ds2_adapters.store.store import AdapterStore

FILE = Path(__file__).parents[1] / "data" / "v0_1" / "two_adapters.pt"
PROGRAM = """
import sys
from nemo_ds2_adapters.cli import main
try:
    main()
finally:
    print(*(name for name in ("nemo", "torch") if name in sys.modules), file=sys.stderr)
"""


def imported_by(*arguments: object) -> set[str]:
    """Which of NeMo and PyTorch a command has imported."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two users."""
    path = tmp_path_factory.mktemp("store")
    for name, adapter in read_adapters(FILE).items():
        AdapterStore(path).put(name, adapter)
    return path


@pytest.fixture(scope="module")
def users(store: Path) -> list[str]:
    return sorted(AdapterStore(store).list())


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["export", "--help"]], ids=" ".join)
def test_help_imports_neither(arguments: list[str]) -> None:
    assert imported_by(*arguments) == set()


def test_lists_and_removals_of_a_store_import_neither(store: Path, users: list[str]) -> None:
    assert imported_by("list", store) == set()
    AdapterStore(store).copy(users[0], "copy")
    assert imported_by("delete", store, "copy", "--yes") == set()
    AdapterStore(store).copy(users[0], "copy")
    assert imported_by("delete", store, "copy", "--erase", "--yes") == set()


def test_weights_need_pytorch_but_not_nemo(store: Path, users: list[str], tmp_path: Path) -> None:
    first = next(iter(read_adapters(FILE)))
    for call in (
        ["list", FILE],
        ["inspect", FILE, first],
        ["inspect", store, users[0]],
        ["verify", FILE, store],
        ["export", store, users[0], tmp_path / "a.pt"],
        ["copy", store, users[0], "copy"],
        ["rename", store, "copy", "other"],
        ["average", store, *users, "--into", "mean"],
        ["import", store, tmp_path / "a.pt", "--as", users[0]],
    ):
        assert imported_by(*call) == {"torch"}, call
