"""`AdapterManager` with any model; what it does with the original's files is tested in tests/compat."""

from pathlib import Path

import pytest
import torch

from nemo_ds2_adapters import AdapterManager, add_adapter, list_adapters
from nemo_ds2_adapters.errors import InputError

manager = AdapterManager()


@pytest.mark.parametrize("suffix", ["nemo", "pt"])
def test_model_and_adapter(make_base, kind, linear, train, outputs, snapshot, suffix: str, tmp_path: Path) -> None:
    model, other = make_base(kind), make_base(kind, seed=1)
    for name in ("user_john", "user_j"):
        add_adapter(model, name, linear)
        train(model, name)
    model.set_enabled_adapters("user_j", enabled=False)
    before = snapshot(model)
    width = 4 if kind == "deepspeech2" else 8
    path = manager.save_model_with_adapter(model, tmp_path / f"base.{suffix}", tmp_path, "user_john")
    assert snapshot(model) == before
    assert manager.get_adapter_info(path) == {
        "name": "user_john",
        "input_dim": width,
        "hidden_dims": [3],
        "output_dim": width,
    }
    assert not torch.equal(outputs(other), outputs(make_base(kind)))
    for target in (other, None):
        loaded = manager.load_model_with_adapter(target, tmp_path / f"base.{suffix}", path).eval()
        assert list_adapters(loaded) == ["user_john"] and torch.equal(outputs(loaded), outputs(model))


def test_a_model_with_files_of_its_own_needs_a_nemo(base, linear, tmp_path: Path) -> None:
    add_adapter(base, "user_john", linear)
    (tmp_path / "units.txt").write_text("a b c")
    base.register_artifact("units", str(tmp_path / "units.txt"))
    with pytest.raises(InputError, match="give a name with .nemo"):
        manager.save_model_with_adapter(base, tmp_path / "base.pt", tmp_path, "user_john")
    assert list_adapters(base) == ["user_john"] and not list(tmp_path.glob("*.pt"))
