"""What needs no model starts without NeMo, and without torch where no weights are read."""

import subprocess
import sys
from pathlib import Path

import pytest

from nemo_ds2_adapters.store.store import AdapterStore

CODE = """
import sys
import nemo_ds2_adapters.store
store = nemo_ds2_adapters.store.AdapterStore(sys.argv[1], create=False)
{}
print(*[name for name in ("nemo", "lightning", "torch") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("work", "loaded"),
    [
        ("assert list(store.list()) == ['a'] and store.has('a') and store.versions('a')", []),
        ("assert store.header('a').info.metadata == {'user_id': 'a'}; store.check_writable()", []),
        ("store.average(['a'], 'b', [1.0]); store.rename('b', 'c'); store.rollback('a', 1); store.erase('c')", []),
        ("assert store.verify().ok; store.export('a', sys.argv[1] + '.pt')", []),
        ("store.get('a')", ["torch"]),
    ],
)
def test_what_is_imported(store: AdapterStore, tmp_path: Path, adapter, work: str, loaded: list[str]) -> None:
    store.put("a", adapter())
    command = [sys.executable, "-c", CODE.format(work), str(tmp_path / "store")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == loaded
