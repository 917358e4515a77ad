"""Writers and readers of adapter files: ours and NeMo's, for names that contain each other."""

import json
import os
import stat
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import pytest
import torch
from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig
from omegaconf import OmegaConf

from nemo_ds2_adapters.adapters.adapter import with_metadata
from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.blocks import adapter_parts, list_adapters
from nemo_ds2_adapters.adapters.enabling import enabled_adapters
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.errors import AdapterFileError, AdapterNameError, BaseMismatchError, InputError
from nemo_ds2_adapters.formats.file import load_adapter, save_adapter, write_adapters
from nemo_ds2_adapters.formats.reading import inspect_adapter, read_adapters

NAMES = ["user_j", "decoder:user_john", "encoder+decoder:user", "er", "김"]  # each contained in another, or odd


@pytest.fixture
def adapted(base, kind, linear, mlp, head, train):
    """A model with several adapters, in several places, under names that contain each other."""
    for i, name in enumerate(NAMES):
        add_adapter(base, name, linear | {"dim": i + 1})
        train(base, name.rpartition(":")[2])
    if kind == "deepspeech2":
        add_adapter(base, "user_j2", mlp | {"layers": [1]})
        add_adapter(base, "user_j22", mlp)
        add_adapter(base, "decoder:user_jo", head | {"mode": "add"})
        train(base, "user_j2")
        train(base, "user_j22")
        train(base, "user_jo")
    return base


def weights(model, name: str) -> dict[str, torch.Tensor]:
    return {f"{path}.{k}": v for path, part in adapter_parts(model, name) for k, v in part.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def write_ours(model, name, path) -> None:
    save_adapter(model, name, path)


def write_nemo(model, name, path) -> None:
    model.save_adapters(str(path), name)


def read_ours(model, path, name) -> None:
    load_adapter(model, path, name)


def read_nemo(model, path, name) -> None:
    model.load_adapters(str(path), name)


# NeMo's own file holds classes, which its own reader refuses since torch 2.6.
PAIRS = [(write_ours, read_ours), (write_ours, read_nemo), (write_nemo, read_ours)]


@pytest.mark.parametrize(("write", "read"), PAIRS)
def test_every_reader_reads_every_writer(adapted, make_base, kind, outputs, tmp_path, write, read) -> None:
    other = make_base(kind)
    for name in list_adapters(adapted):
        path = tmp_path / f"{name}.pt"
        write(adapted, name, path)
        full_name = next(iter(inspect_adapter(path)["adapters"].values()))["module"]
        read(other, path, f"{full_name}:{name}" if full_name else name)
        assert same(weights(other, name), weights(adapted, name))
    assert list_adapters(other) == list_adapters(adapted)
    seen = []
    for names in ([], *([name] for name in list_adapters(adapted)), list_adapters(adapted)):
        with enabled_adapters(adapted, names), enabled_adapters(other, names):
            seen.append(outputs(adapted))
            assert torch.equal(outputs(other), seen[-1])
    assert all(not torch.equal(one, two) for one, two in pairwise(seen))


@pytest.mark.parametrize(("write", "read"), PAIRS)
def test_all_adapters_in_one_file(adapted, make_base, kind, tmp_path, write, read) -> None:
    write(adapted, None, tmp_path / "all.pt")
    other = make_base(kind)
    read(other, tmp_path / "all.pt", None)
    assert list(other.state_dict()) == list(adapted.state_dict())
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in adapted.state_dict().items())


def test_stock_file_with_dataclasses(make_base, kind, tmp_path) -> None:
    """What NeMo's scripts write: configs that refer to their dataclasses."""
    model, other = make_base(kind), make_base(kind)
    model.add_adapter("user_j", LinearAdapterConfig(0, dim=3))
    model.add_adapter("user_john", LinearAdapterConfig(0, dim=4))
    model.save_adapters(str(tmp_path / "a.pt"), "user_j")
    assert load_adapter(other, tmp_path / "a.pt") == ["user_j"]
    assert same(weights(other, "user_j"), weights(model, "user_j"))
    assert inspect_adapter(tmp_path / "a.pt")["format"] == "nemo"


def test_file_opens_with_plain_torch_load_and_is_plain(adapted, tmp_path) -> None:
    path = tmp_path / "adapter.pt"
    save_adapter(adapted, "user", path, metadata={"user_id": "홍길동", "wer": [0.5, None, {"after": 0.1}]})
    content = torch.load(path, weights_only=True)
    assert list(content) == ["encoder+decoder:user", "__cfg__", "__nemo_ds2_adapters__"]
    assert sorted(content["__cfg__"]) == ["global_cfg", "user"]
    states = content.pop("encoder+decoder:user")
    assert all(type(v) is torch.Tensor and k.startswith("user.") for state in states for k, v in state.items())
    json.dumps(content, allow_nan=False)


def test_inspect_says_what_is_in_the_file(adapted, tmp_path) -> None:
    path = tmp_path / "adapter.pt"
    metadata = {"user_id": "..", "hours": 0.1, "wer_before": 0.6, "wer_after": 0.1, "language": "en"}
    save_adapter(adapted, ["user_j", "decoder:user_john"], path, metadata)
    about = inspect_adapter(path)
    json.dumps(about)
    assert about["format"] == "nemo_ds2_adapters" and about["format_version"] == 1
    assert about["fingerprint"] == fingerprint(adapted)
    assert about["metadata"] == metadata
    assert set(about["versions"]) == {"nemo_ds2_adapters", "nemo_toolkit", "torch"}
    assert datetime.fromisoformat(about["created"]).tzinfo is not None
    one, two = about["adapters"]["user_j"], about["adapters"]["user_john"]
    assert (one["module"], two["module"]) == ("", "decoder")
    assert one["type"].endswith("LinearAdapter") and one["config"]["dim"] == 1
    parts = [part for _, part in adapter_parts(adapted, "user_j")]
    assert one["parameters"] == sum(p.numel() for part in parts for p in part.parameters())
    assert one["shapes"] == [{k: list(v.shape) for k, v in part.state_dict().items()} for part in parts]


def test_choose_and_rename(adapted, make_base, kind, tmp_path) -> None:
    path = tmp_path / "all.pt"
    save_adapter(adapted, None, path)
    other = make_base(kind)
    assert load_adapter(other, path, name="decoder:user_john", as_name="user") == ["user"]
    assert list(weights(other, "user").values())
    assert other.cfg.adapters.global_cfg.adapter_meta_cfg.modules == {"user": "decoder"}
    assert load_adapter(other, path, name=["er", "user_j"]) == ["er", "user_j"]
    for name, as_name, message in [
        ("nobody", None, "no adapter 'nobody' in .*all.pt"),
        ("encoder:user_john", None, "did you mean 'decoder:user_john'"),
        ("user_j", None, "exists already"),
        ("user_john", "user_j", "exists already"),
        ("user_john", "0", "weight names"),
        ("user_john", "decoder:x", "reserves"),
        (None, "x", "choose one with name="),
    ]:
        with pytest.raises(InputError, match=message):
            load_adapter(other, path, name=name, as_name=as_name)
    assert list_adapters(other) == ["user", "er", "user_j"]


def test_other_adapters_and_random_numbers_are_left_alone(adapted, make_base, kind, linear, tmp_path) -> None:
    save_adapter(adapted, "user", tmp_path / "a.pt")
    other = make_base(kind)
    add_adapter(other, "user_john", linear)
    before = weights(other, "user_john"), torch.random.get_rng_state()
    load_adapter(other, tmp_path / "a.pt")
    assert same(weights(other, "user_john"), before[0])
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_disabled_adapter_is_saved_enabled(adapted, make_base, kind, tmp_path) -> None:
    with enabled_adapters(adapted, None):
        save_adapter(adapted, "user", tmp_path / "a.pt")
    other = make_base(kind)
    load_adapter(other, tmp_path / "a.pt")
    assert other.get_enabled_adapters() == ["user"]


def test_precision_of_the_model(adapted, make_base, kind, tmp_path) -> None:
    save_adapter(adapted, "user", tmp_path / "a.pt")
    other = make_base(kind).double()
    load_adapter(other, tmp_path / "a.pt", strict_base=False)
    assert same(weights(other, "user"), {k: v.double() for k, v in weights(adapted, "user").items()})


def test_other_base_is_refused(adapted, make_base, kind, snapshot, tmp_path) -> None:
    path = tmp_path / "a.pt"
    save_adapter(adapted, "user_j", path)
    other = make_base(kind, seed=1)
    before = snapshot(other)
    with pytest.raises(BaseMismatchError) as caught:
        load_adapter(other, path)
    assert fingerprint(adapted) in str(caught.value) and fingerprint(other) in str(caught.value)
    assert "the same settings and vocabulary, but other weights" in str(caught.value)
    assert snapshot(other) == before
    load_adapter(other, path, strict_base=False)
    assert same(weights(other, "user_j"), weights(adapted, "user_j"))


def test_other_sizes_are_named_and_never_fit(adapted, make_base, kind, snapshot, tmp_path) -> None:
    path = tmp_path / "a.pt"
    save_adapter(adapted, "user_j", path)
    width = 4 if kind == "deepspeech2" else 8
    other = make_base(kind, d_model=12)
    before = snapshot(other)
    with pytest.raises(BaseMismatchError, match="d_model"):
        load_adapter(other, path)
    with pytest.raises(AdapterFileError, match=rf"float32 \[{width}\] in the adapter, .* \[12\] in the model"):
        load_adapter(other, path, strict_base=False)
    assert snapshot(other) == before


def test_other_number_of_layers(make_base, mlp, snapshot, tmp_path) -> None:
    model, other = make_base(n_layers=3), make_base(n_layers=2)
    add_adapter(model, "a", mlp | {"layers": "all"})
    add_adapter(model, "b", mlp | {"layers": "last"})
    save_adapter(model, None, tmp_path / "a.pt")
    before = snapshot(other)
    for name, message in [("a", "weights for 3 points, in the model there is room for 2"), ("b", "adapter_points.3")]:
        with pytest.raises(AdapterFileError, match=message):
            load_adapter(other, tmp_path / "a.pt", name, strict_base=False)
    assert snapshot(other) == before


def test_second_adapter_that_fails_takes_the_first_back(adapted, make_base, kind, linear, snapshot, tmp_path) -> None:
    save_adapter(adapted, ["user_j", "er"], tmp_path / "a.pt")
    other = make_base(kind)
    add_adapter(other, "er", linear)
    before = snapshot(other)
    with pytest.raises(AdapterNameError, match="'er' exists already"):
        load_adapter(other, tmp_path / "a.pt")
    assert snapshot(other) == before


def test_what_cannot_be_saved(adapted, tmp_path) -> None:
    path = tmp_path / "a.pt"
    for name, metadata, error, message in [
        ("user_jon", None, AdapterNameError, "did you mean 'user_john'"),
        ([], None, AdapterNameError, "no name was given"),
        ("user", {"wer": torch.float32}, InputError, "wer is a dtype"),
        ("user", {"wer": {1: 2}}, InputError, "key that is not text: 1"),
    ]:
        with pytest.raises(error, match=message):
            save_adapter(adapted, name, path, metadata)
    with torch.no_grad():
        next(iter(weights(adapted, "user").values()))[0] = torch.nan
    with pytest.raises(AdapterFileError, match="not finite"):
        save_adapter(adapted, "user", path)
    assert list(tmp_path.iterdir()) == []


def test_adapter_whose_module_was_replaced(make_base, linear, tmp_path) -> None:
    model = make_base("conformer")  # whose decoder lets NeMo drop its adapters
    add_adapter(model, "decoder:a", linear)
    model.change_vocabulary([" ", "a", "b"])
    with pytest.raises(InputError, match="has a config but no modules"):
        save_adapter(model, "a", tmp_path / "a.pt")


def test_failed_write_leaves_the_old_file(adapted, tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.pt"
    save_adapter(adapted, "user", path)
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(AdapterFileError, match=r"a\.pt: cannot be written \(No space left on device\)"):
        save_adapter(adapted, "er", path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_where_files_are_written(adapted, tmp_path) -> None:
    with pytest.raises(AdapterFileError, match="No such file or directory"):
        save_adapter(adapted, "user", tmp_path / "nowhere" / "a.pt")
    with pytest.raises(AdapterFileError, match="Is a directory"):
        save_adapter(adapted, "user", tmp_path)
    real, link = tmp_path / "real.pt", tmp_path / "link.pt"
    link.symlink_to(real)
    save_adapter(adapted, "user", link)
    assert link.is_symlink() and real.is_file()
    umask = os.umask(0o027)
    os.umask(umask)
    assert stat.S_IMODE(real.stat().st_mode) == 0o666 & ~umask
    real.chmod(0o600)
    save_adapter(adapted, "user", link)
    assert stat.S_IMODE(real.stat().st_mode) == 0o600  # what others could not read, they cannot read afterwards


def test_names_in_messages_are_not_mixed_up(adapted, make_base, kind, tmp_path) -> None:
    save_adapter(adapted, "user", tmp_path / "a.pt")
    with pytest.raises(AdapterNameError, match=r"no adapter 'the model' in .*a\.pt: it has"):
        load_adapter(make_base(kind), tmp_path / "a.pt", name="the model")


def test_what_a_file_cannot_hold(adapted, tmp_path) -> None:
    path = tmp_path / "a.pt"
    save_adapter(adapted, ["user", "er"], path, {"x": 1})
    user, er = read_adapters(path).values()
    for adapters, message in [
        ([replace(user, info=None), er], "does not say for which base"),
        ([], "does not say for which base"),
        ([with_metadata(user, {"x": 2}), er], "these differ in that"),
        ([user, replace(er, name="user")], "two adapters are called 'user'"),
        ([replace(user, config={**user.config, "dim": torch.ones(1)}), er], "config of adapter 'user' cannot be writ"),
    ]:
        before = path.read_bytes()
        with pytest.raises(InputError, match=message):
            write_adapters(adapters, path)
        assert path.read_bytes() == before


def test_interpolations_are_resolved_in_the_file(base, linear, tmp_path) -> None:
    base.cfg.labels[1] = "a"
    add_adapter(base, "a", OmegaConf.create({"size": 3, "x": {**linear, "dim": "${size}"}}).x)
    save_adapter(base, "a", tmp_path / "a.pt")
    assert inspect_adapter(tmp_path / "a.pt")["adapters"]["a"]["config"]["dim"] == 3
