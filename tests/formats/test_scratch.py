"""A temporary folder ends with its run; of a run that was killed, with the next one."""

import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.formats.scratch import ScratchFolder, sweep_scratch

CHILD = """
import os, sys
from nemo_ds2_adapters.formats.scratch import ScratchFolder
folder = ScratchFolder("activations")
(folder.path / "speech").write_bytes(b"speech")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_it_ends_with_its_block_and_with_its_object() -> None:
    with ScratchFolder("training") as folder:
        (folder / "file").write_text("text")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        sweep_scratch()
        assert (folder / "file").exists()  # it is in use
    assert not folder.exists()
    scratch = ScratchFolder("training")
    path = scratch.path
    del scratch
    assert not path.exists()


def test_what_a_killed_run_has_left_is_swept_by_the_next(temporary: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    left = Path(child.stdout.readline().strip())
    with ScratchFolder("activations"):
        assert (left / "speech").exists()  # its run goes on
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert (left / "speech").exists()
    with ScratchFolder("activations"):
        assert not left.exists()


def test_links_are_not_followed(temporary: Path) -> None:
    outside = temporary / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (temporary / "nemo_ds2_adapters-activations-link").symlink_to(outside)
    sweep_scratch()
    assert (outside / "file").exists()


def test_activations_beyond_memory_lie_there_and_say_so(temporary: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "nemo_ds2_adapters")
    cache = PrefixCache(memory=0.0)
    cache.put({"audio": 1}, torch.ones(3))
    (folder,) = temporary.glob("nemo_ds2_adapters-activations-*")
    assert str(folder) in caplog.text
    del cache
    assert not folder.exists()
