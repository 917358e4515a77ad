"""The cache gives back what was put, or nothing: never another tensor."""

import errno
import os
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.errors import InputError

KEY = {"base": "abc", "point": 0, "audio": ["a.wav", 1, 2, None, 0.5]}
OTHER = {**KEY, "point": 1}


def tensor(rows: int = 4) -> torch.Tensor:
    return torch.arange(3.0 * rows).reshape(rows, 3)


@pytest.mark.parametrize("memory", [1.0, 0.0], ids=["in memory", "in files"])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_what_was_put_is_got(tmp_path: Path, memory: float, kept: bool, dtype: torch.dtype) -> None:
    cache = PrefixCache(tmp_path if kept else None, memory)
    cache.put(KEY, tensor().to(dtype))
    got = cache.get(KEY)
    assert got is not None and got.dtype == dtype and torch.equal(got, tensor().to(dtype))
    assert KEY in cache and OTHER not in cache and cache.get(OTHER) is None
    assert (len(list(tmp_path.iterdir())) > 0) == kept


@pytest.mark.gpu
@pytest.mark.parametrize("memory", [1.0, 0.0], ids=["in memory", "in files"])
def test_on_a_gpu(tmp_path: Path, memory: float) -> None:
    cache = PrefixCache(tmp_path, memory)
    cache.put(KEY, tensor().cuda())
    for later in (cache, PrefixCache(tmp_path)):
        got = later.get(KEY)
        assert got is not None and got.device.type == "cpu" and torch.equal(got, tensor())


def test_memory_stays_under_its_limit() -> None:
    cache = PrefixCache(memory=1e-6)  # 1,000 bytes
    for point in range(50):
        cache.put({**KEY, "point": point}, tensor(20) + point)
    assert 0 < cache.bytes_in_memory <= 1000
    for point in range(50):
        assert torch.equal(cache.get({**KEY, "point": point}), tensor(20) + point)
    assert cache.bytes_in_memory <= 1000


def test_a_replaced_tensor_is_counted_once() -> None:
    cache = PrefixCache(memory=1e-6)  # 1,000 bytes
    for rows in (20, 40, 20, 40):  # 240 and 480 bytes
        cache.put(KEY, tensor(rows))
        assert cache.bytes_in_memory == tensor(rows).nbytes
    cache.put(KEY, tensor(100))  # to a file
    assert cache.bytes_in_memory == 0 and torch.equal(cache.get(KEY), tensor(100))
    cache.put(KEY, tensor(20))
    assert cache.bytes_in_memory == 240 and torch.equal(cache.get(KEY), tensor(20))


def test_precision_is_the_caches(tmp_path: Path) -> None:
    PrefixCache(tmp_path, dtype=torch.float16).put(KEY, tensor())
    assert PrefixCache(tmp_path, dtype=torch.float16).get(KEY).dtype == torch.float16
    assert PrefixCache(tmp_path).get(KEY) is None


def test_what_a_killed_run_was_writing_is_swept(tmp_path: Path) -> None:
    left, now = tmp_path / f".abc.safetensors.{1:032x}.tmp", tmp_path / f".def.safetensors.{2:032x}.tmp"
    left.write_bytes(b"speech")
    now.write_bytes(b"speech")  # of a run that goes on
    os.utime(left, (0, 0))
    PrefixCache(tmp_path).put(KEY, tensor())
    assert not left.exists() and now.exists()


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PrefixCache(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="activations: .* cannot be written .No space left on device"):
        cache.put(KEY, tensor())
    assert list(tmp_path.iterdir()) == []


def test_a_later_run_finds_files_and_is_the_only_one_to_read_them(tmp_path: Path) -> None:
    PrefixCache(tmp_path).put(KEY, tensor())
    assert torch.equal(PrefixCache(tmp_path).get(KEY), tensor())
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0


@given(position=st.integers(0, 10_000), change=st.integers(1, 255))
def test_a_damaged_file_is_not_trusted(tmp_path_factory: pytest.TempPathFactory, position: int, change: int) -> None:
    folder = tmp_path_factory.mktemp("cache")
    PrefixCache(folder).put(KEY, tensor())
    (file,) = folder.iterdir()
    content = bytearray(file.read_bytes())
    content[position % len(content)] ^= change
    file.write_bytes(content)
    got = PrefixCache(folder).get(KEY)
    assert got is None or torch.equal(got, tensor())
    cache = PrefixCache(folder)
    if cache.get(KEY) is None:
        cache.put(KEY, tensor())
    assert torch.equal(PrefixCache(folder).get(KEY), tensor())


def test_a_file_cut_off_is_not_trusted(tmp_path: Path) -> None:
    PrefixCache(tmp_path).put(KEY, tensor())
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    for length in range(0, len(content), 7):
        file.write_bytes(content[:length])
        assert PrefixCache(tmp_path).get(KEY) is None


def test_a_file_of_another_key_is_not_trusted(tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path)
    cache.put(KEY, tensor())
    (mine,) = tmp_path.iterdir()
    cache.put(OTHER, tensor() + 1)
    (theirs,) = (path for path in tmp_path.iterdir() if path != mine)
    os.replace(theirs, mine)
    assert PrefixCache(tmp_path).get(KEY) is None


def test_a_run_that_was_killed_leaves_nothing_to_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        PrefixCache(tmp_path).put(KEY, tensor())
    assert PrefixCache(tmp_path).get(KEY) is None


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no folder for activations"):
        PrefixCache(tmp_path / "file" / "cache")
