"""`AdapterManager`: the original's calls, files and names."""

from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf

from nemo_ds2_adapters import add_adapter, list_adapters, save_adapter
from nemo_ds2_adapters.adapters.enabling import enable_adapters, enabled_names
from nemo_ds2_adapters.compat import AdapterManager
from nemo_ds2_adapters.errors import AdapterFileError, AdapterNameError, BaseMismatchError, InputError
from nemo_ds2_adapters.modules import MLPAdapterConfig, MLPHeadAdapterConfig

manager = AdapterManager()
ORIGINAL_KEYS = ["adapter_state_dict", "input_dim", "hidden_dims", "output_dim", "adapter_name"]
MLP = MLPAdapterConfig(hidden_dims=[6], layers="last")


@pytest.fixture
def personal(build, disturb):
    """A model with two heads, `user_john` enabled, and a feature adapter."""
    model = build()
    for name in ("user_jane", "user_john"):
        enable_adapters(model, None)
        add_adapter(model, f"decoder:{name}", MLPHeadAdapterConfig(hidden_dims=[5, 3], mode="replace"))
    add_adapter(model, "room", MLP)
    disturb(model, "room")
    enable_adapters(model, "user_john")
    return model


def state_of(model) -> tuple:
    return (
        OmegaConf.to_yaml(model.cfg),
        {key: value.clone() for key, value in model.state_dict().items()},
        enabled_names(model) if list_adapters(model) else [],
    )


def assert_same(one: tuple, two: tuple) -> None:
    assert (one[0], one[1].keys(), one[2]) == (two[0], two[1].keys(), two[2])
    assert all(torch.equal(value, two[1][key]) for key, value in one[1].items())


def test_save_and_load(personal, build, outputs, tmp_path: Path) -> None:
    path = manager.save_adapter(model=personal, save_path=tmp_path / "adapters", adapter_name="user_john")
    assert path == tmp_path / "adapters" / "user_john_adapter.pt"
    content = torch.load(path, weights_only=True)
    assert list(content) == ORIGINAL_KEYS
    info = {"name": "user_john", "input_dim": 8, "hidden_dims": [5, 3], "output_dim": 29}
    assert manager.get_adapter_info(path) == info
    other = build()
    assert manager.load_adapter(model=other, adapter_path=path) == "user_john"
    assert list_adapters(other) == ["user_john"]
    assert torch.equal(outputs(other), outputs(personal))
    assert AdapterManager.load_adapter(other, str(path)) == "user_john"  # again, and without an object
    assert list_adapters(other) == ["user_john"] and torch.equal(outputs(other), outputs(personal))


def test_loading_takes_the_place_of_what_was_enabled(personal, build, outputs, tmp_path: Path) -> None:
    for name in ("user_john", "user_jane"):
        manager.save_adapter(personal, tmp_path, name)
    model = build(use_adapter=True)
    manager.load_adapter(model, tmp_path / "user_john_adapter.pt")
    manager.load_adapter(model, tmp_path / "user_jane_adapter.pt")
    assert list_adapters(model) == ["default", "user_john", "user_jane"] and enabled_names(model) == ["user_jane"]
    enable_adapters(personal, "user_jane")
    assert torch.equal(outputs(model), outputs(personal))


def test_the_enabled_adapter_is_saved_under_another_name(personal, tmp_path: Path) -> None:
    path = manager.save_adapter(personal, tmp_path, "user_mary")
    assert manager.get_adapter_info(path)["name"] == "user_mary"
    one, two = (
        torch.load(manager.save_adapter(personal, tmp_path, name), weights_only=True)["adapter_state_dict"]
        for name in ("user_mary", "user_john")
    )
    assert one.keys() == two.keys() and all(torch.equal(value, two[key]) for key, value in one.items())
    assert list_adapters(personal) == ["user_jane", "user_john", "room"]
    enable_adapters(personal, None)
    with pytest.raises(AdapterNameError, match="no adapter 'user_mary'"):
        manager.save_adapter(personal, tmp_path, "user_mary")


@pytest.mark.parametrize("adapter", [MLP, MLPHeadAdapterConfig(hidden_dims=[6], activation="tanh", mode="replace")])
def test_what_the_original_cannot_hold_is_saved_in_our_format(build, outputs, disturb, adapter, tmp_path) -> None:
    model, other = build(), build()
    add_adapter(model, "room" if adapter is MLP else "decoder:room", adapter)
    disturb(model, "room")
    path = manager.save_adapter(model, tmp_path, "room")
    assert "__cfg__" in torch.load(path, weights_only=True)
    size = 8 if adapter is MLP else 29
    assert manager.get_adapter_info(path) == {"name": "room", "input_dim": 8, "hidden_dims": [6], "output_dim": size}
    manager.load_adapter(other, path)
    assert torch.equal(outputs(other), outputs(model))
    before = state_of(stranger := build(seed=1))
    with pytest.raises(BaseMismatchError):
        manager.load_adapter(stranger, path)
    assert_same(before, state_of(stranger))


@pytest.mark.parametrize("suffix", ["nemo", "pt"])
def test_model_and_adapter(personal, build, outputs, suffix: str, tmp_path: Path) -> None:
    before = state_of(personal)
    base = tmp_path / f"base.{suffix}"
    path = manager.save_model_with_adapter(
        model=personal, model_path=base, adapter_path=tmp_path / "adapters", adapter_name="user_john"
    )
    assert_same(before, state_of(personal))
    assert path == tmp_path / "adapters" / "user_john_adapter.pt"
    expected = outputs(personal)
    model = build(seed=1)
    assert not torch.equal(outputs(model), outputs(build()))
    assert manager.load_model_with_adapter(model=model, model_path=base, adapter_path=path) is model
    assert list_adapters(model) == ["user_john"] and torch.equal(outputs(model), expected)
    built = manager.load_model_with_adapter(model=None, model_path=base, adapter_path=path).eval()
    assert list_adapters(built) == ["user_john"] and torch.equal(outputs(built), expected)
    enable_adapters(built, None)
    assert torch.equal(outputs(built), outputs(build()))
    if suffix == "nemo":
        assert not list_adapters(ASRModel.restore_from(str(base)))
    else:
        content = torch.load(base, weights_only=True)
        assert content["model_state_dict"].keys() == build().state_dict().keys()


@pytest.mark.parametrize("suffix", ["nemo", "pt"])
def test_a_base_that_does_not_fit_changes_nothing(personal, build, suffix: str, tmp_path: Path) -> None:
    base = tmp_path / f"base.{suffix}"
    path = manager.save_model_with_adapter(personal, base, tmp_path, "user_john")
    for change, message in (
        ({"rnn_hidden_dim": 5}, "encoder.d_model: 4 in the file, 5 in the model"),
        ({"num_classes": 29, "vocabulary": [chr(i) for i in range(97, 125)]}, "vocabulary: 28 entries in the file"),
    ):
        other = build(**change)
        before = state_of(other)
        with pytest.raises(InputError, match=message):
            manager.load_model_with_adapter(other, base, path)
        assert_same(before, state_of(other))
    other = build(seed=1)
    before = state_of(other)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(AdapterFileError):
        manager.load_model_with_adapter(other, base, path)
    assert_same(before, state_of(other))


def test_wrong_input(personal, build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("noise.pt").write_bytes(b"\x00" * 100)
    Path("noise.nemo").write_bytes(b"\x00" * 100)
    torch.save({"model_state_dict": {}, "config": {"target": "os.system"}}, "odd.pt")
    torch.save([1], "list.pt")
    save_adapter(personal, None, "three.pt")
    good = manager.save_adapter(personal, ".", "user_john")
    before, files = state_of(personal), sorted(Path().iterdir())
    save, load = manager.save_model_with_adapter, manager.load_model_with_adapter
    for call, kind, message in (
        (lambda: manager.save_adapter(personal, "file", "user_john"), InputError, "give the directory"),
        (lambda: manager.save_adapter(personal, "x.pt", "user_john"), InputError, "give the directory"),
        (lambda: manager.save_adapter(personal, ".", "../user"), InputError, "part of a file name"),
        (lambda: manager.save_adapter(personal, ".", "user.john"), AdapterNameError, "reserves"),
        (lambda: manager.save_adapter(personal, "file/x", "user_john"), AdapterFileError, "cannot be made"),
        (lambda: manager.save_adapter(build(), "."), AdapterNameError, "no adapter 'default'"),
        (lambda: manager.load_adapter(personal, "nowhere.pt"), AdapterFileError, "nowhere.pt"),
        (lambda: manager.load_adapter(personal, "noise.pt"), AdapterFileError, "noise.pt"),
        (lambda: manager.load_adapter(personal, "."), AdapterFileError, "directory"),
        (lambda: manager.load_adapter(personal, "three.pt"), AdapterFileError, "holds 3 adapters"),
        (lambda: manager.load_adapter(build(rnn_hidden_dim=5), good), AdapterFileError, "user_john"),
        (lambda: manager.get_adapter_info("nowhere.pt"), AdapterFileError, "nowhere.pt"),
        (lambda: save(personal, "base.ckpt", ".", "user_john"), InputError, "ends with .nemo or .pt"),
        (lambda: save(personal, "file/base.pt", ".", "user_john"), AdapterFileError, "cannot be made"),
        (lambda: save(personal, "file/base.nemo", ".", "user_john"), AdapterFileError, "made"),
        (lambda: save(personal, "base.pt", "file", "user_john"), InputError, "give the directory"),
        (lambda: load(personal, "base.ckpt", good), InputError, "ends with .nemo or .pt"),
        (lambda: load(personal, "nowhere.pt", good), InputError, "nowhere.pt: no such file"),
        (lambda: load(personal, "nowhere.nemo", good), InputError, "nowhere.nemo"),
        (lambda: load(personal, "noise.nemo", good), InputError, "noise.nemo"),
        (lambda: load(personal, "odd.pt", good), InputError, "odd.pt: is not a base model"),
        (lambda: load(personal, "list.pt", good), InputError, "list.pt: is not a base model"),
        (lambda: load(personal, good, good), InputError, "is not a base model"),
    ):
        with pytest.raises(kind, match=message):
            call()
        assert_same(before, state_of(personal))
        assert sorted(Path().iterdir()) == files
