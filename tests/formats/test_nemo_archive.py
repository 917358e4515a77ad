"""Models from `.nemo` files of anybody, and back: one clear error each, nothing imported, the old file or the new."""

import errno
import io
import os
import pickle
import stat
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector

from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.cli.app import verify
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.file import save_adapter
from nemo_ds2_adapters.formats.nemo_archive import restore_model, save_nemo

CONFIG, WEIGHTS = "./model_config.yaml", "./model_weights.ckpt"


@pytest.fixture
def model(make_base):
    return make_base()


@pytest.fixture
def nemo(model, tmp_path: Path) -> Path:
    save_nemo(model, tmp_path / "base.nemo")
    return tmp_path / "base.nemo"


def change(path: Path, **entries: bytes | None) -> None:
    """Give entries of an archive other contents; None takes one out."""
    with tarfile.open(path) as archive:
        contents = {m.name: archive.extractfile(m).read() for m in archive.getmembers() if m.isfile()}
    contents |= {{"config": CONFIG, "weights": WEIGHTS}[key]: value for key, value in entries.items()}
    with tarfile.open(path, "w") as archive:
        for name, content in contents.items():
            if content is not None:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def entry(path: Path, name: str) -> bytes:
    with tarfile.open(path) as archive:
        return archive.extractfile(name).read()


def saved(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_encoder_of_another_package_is_not_imported(nemo, tmp_path, monkeypatch) -> None:
    (tmp_path / "evilmod.py").write_text("class X:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    ours = b"nemo_ds2_adapters.modules.DeepSpeech2EncoderAdapter"
    assert ours in entry(nemo, CONFIG)
    change(nemo, config=entry(nemo, CONFIG).replace(ours, b"evilmod.X"))
    with pytest.raises(InputError, match=r"base\.nemo: its encoder evilmod\.X is of a package that NeMo does not"):
        restore_model(str(nemo), None)
    assert "evilmod" not in sys.modules


BROKEN = {
    "truncated weights": lambda path: change(path, weights=entry(path, WEIGHTS)[:-2000]),
    "bad YAML": lambda path: change(path, config=b"a: [1\nb: }"),
    "no YAML": lambda path: change(path, config=b"text"),
    "a list": lambda path: change(path, config=b"- encoder"),
    "no config": lambda path: change(path, config=None),
    "no weights": lambda path: change(path, weights=None),
    "a pickle": lambda path: change(path, weights=pickle.dumps(os.getcwd)),
    "other shapes": lambda path: change(path, weights=saved({"decoder.output.weight": torch.ones(2)})),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:3000]),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_archives_are_one_line(nemo, name) -> None:
    BROKEN[name](nemo)
    with pytest.raises(InputError, match=r"base\.nemo: ") as caught:
        restore_model(str(nemo), None)
    assert "\n" not in str(caught.value)


def test_what_is_broken_does_not_keep_others_from_being_checked(nemo, model, linear, capsys) -> None:
    add_adapter(model, "a", linear)
    save_adapter(model, "a", nemo.with_suffix(".pt"))
    change(nemo, weights=None)
    import typer

    with pytest.raises(typer.Exit):
        verify([str(nemo), str(nemo.with_suffix(".pt"))])
    out = capsys.readouterr().out
    assert "PROBLEM" in out and "base.pt: 1 adapter checked, 0 problems" in out


def test_full_temporary_folder_is_called_that(nemo, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SaveRestoreConnector, "_unpack_nemo_file", fail)
    with pytest.raises(InputError, match=r"base\.nemo: cannot be unpacked \(No space left .* TMPDIR") as caught:
        restore_model(str(nemo), None)
    assert "not a .nemo archive" not in str(caught.value)


@pytest.mark.parametrize("where", ["packing", "weights", "disk"])
def test_failed_save_leaves_the_old_file(nemo, model, linear, monkeypatch, where) -> None:
    before = nemo.read_bytes()
    add_adapter(model, "a", linear)

    def half(filename: str, source_dir: str) -> None:
        Path(filename).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    def no_space(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    def no_sync(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    if where == "packing":
        monkeypatch.setattr(SaveRestoreConnector, "_make_nemo_file_from_folder", staticmethod(half))
    elif where == "weights":
        monkeypatch.setattr(torch, "save", no_space)
    else:
        monkeypatch.setattr(os, "fsync", no_sync)
    with pytest.raises(AdapterFileError, match=r"base\.nemo: cannot be written"):
        save_nemo(model, nemo)
    assert nemo.read_bytes() == before and list(nemo.parent.iterdir()) == [nemo]


def test_links_and_permissions_stay(nemo, model, linear) -> None:
    real = nemo.rename(nemo.with_name("real.nemo"))
    nemo.symlink_to(real)
    real.chmod(0o600)
    add_adapter(model, "a", linear)
    save_nemo(model, nemo)
    assert nemo.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o600
    assert list_adapters(restore_model(str(nemo), None)) == ["a"]
