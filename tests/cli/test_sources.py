"""What a `.nemo` and a `.pt` do with adapters, below the command line."""

import stat
from pathlib import Path

import pytest
import torch

from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.cli.app import import_command
from nemo_ds2_adapters.cli.model_source import ModelSource
from nemo_ds2_adapters.cli.sources import FileSource
from nemo_ds2_adapters.errors import BaseMismatchError
from nemo_ds2_adapters.formats.file import save_adapter
from nemo_ds2_adapters.formats.nemo_archive import restore_model, save_nemo
from nemo_ds2_adapters.formats.reading import look_into, read_adapters


@pytest.fixture
def base_path(make_base, tmp_path: Path) -> Path:
    save_nemo(make_base(), tmp_path / "base.nemo")
    return tmp_path / "base.nemo"


@pytest.fixture
def pt(make_base, linear, train, tmp_path: Path) -> Path:
    """An adapter of that base, called `ann`, in NeMo's format, under a file name that stands in messages elsewhere."""
    model = make_base()
    add_adapter(model, "ann", linear)
    train(model, "ann")
    model.save_adapters(str(tmp_path / "strict_base=False.pt"), "ann")
    return tmp_path / "strict_base=False.pt"


def test_import_with_a_base_keeps_the_adapters_name(base_path, pt, capsys) -> None:
    import_command(str(base_path), pt, base=base_path)
    assert list_adapters(restore_model(str(base_path), None)) == ["ann"]
    assert capsys.readouterr().out == f"ann of {pt} imported into {base_path} as ann\n"


def test_other_base_names_the_file_and_the_option(make_base, base_path, pt) -> None:
    model = make_base(seed=1)
    add_adapter(model, "ann", {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [3]})
    save_adapter(model, "ann", pt)
    source = ModelSource(base_path)
    with pytest.raises(BaseMismatchError) as caught:
        source.take(read_adapters(pt)["ann"], str(pt), None, any_base=False)
    assert str(caught.value).startswith(f"{pt}: adapter 'ann' was made for another base")
    assert str(caught.value).endswith("or pass --any-base if it may serve another")
    assert source.take(read_adapters(pt)["ann"], str(pt), "bob", any_base=True) == "bob"
    assert list_adapters(restore_model(str(base_path), None)) == ["bob"]


def test_a_file_keeps_its_format_its_permissions_and_the_link_to_it(pt) -> None:
    link = pt.with_name("link.pt")
    link.symlink_to(pt)
    pt.chmod(0o600)
    FileSource(link).rename("ann", "bob")
    FileSource(link).average(["bob"], "eve", None)
    assert link.is_symlink() and stat.S_IMODE(pt.stat().st_mode) == 0o600
    file_format, adapters = look_into(link)
    assert file_format == "nemo" and list(adapters) == ["bob", "eve"]
    assert set(torch.load(pt, weights_only=True)) == {"bob", "eve", "__cfg__"}
