"""Files that earlier versions wrote load, and give what they gave then."""

from pathlib import Path

import pytest
import torch

from nemo_ds2_adapters.adapters.attach import detach
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.adapters.enabling import enabled_adapters
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.formats.file import load_adapter, write_adapters
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from nemo_ds2_adapters.formats.reading import OURS, inspect_adapter, look_into, read_adapters

FOLDER = Path(__file__).parents[1] / "data" / "v0_1"
NAMES = ["user_john", "user_j"]
CHOICES = {"base": None, "user_john": "user_john", "user_j": "decoder:user_j", "both": NAMES}


@pytest.fixture
def model():
    return restore_model(str(FOLDER / "model.nemo"), None).cpu().eval()


def check_outputs(model) -> None:
    recorded = torch.load(FOLDER / "outputs.pt", weights_only=True)
    seen = []
    for key, names in CHOICES.items():
        with torch.no_grad(), enabled_adapters(model, names):
            seen.append(model(input_signal=recorded["signal"], input_signal_length=recorded["lengths"])[0])
        torch.testing.assert_close(seen[-1], recorded[key])
    assert not any(torch.allclose(one, two) for i, one in enumerate(seen) for two in seen[:i])


def test_model(model) -> None:
    assert list_adapters(model) == NAMES
    check_outputs(model)


@pytest.mark.parametrize("reader", ["ours", "nemo"])
def test_adapter_file(model, reader: str) -> None:
    for name in NAMES:
        detach(model, name)
    if reader == "ours":
        assert load_adapter(model, FOLDER / "two_adapters.pt") == NAMES
    else:
        model.load_adapters(str(FOLDER / "two_adapters.pt"))
    check_outputs(model)


def test_adapters_as_values(model) -> None:
    adapters = read_adapters(FOLDER / "two_adapters.pt")
    assert look_into(FOLDER / "two_adapters.pt")[0] == OURS and list(adapters) == NAMES
    for name, adapter in adapters.items():
        assert adapter == attached_adapter(model, name)
        assert adapter.info is adapters["user_john"].info  # they share one
        assert adapter.info.fingerprint == fingerprint(model)
        assert adapter.metadata == {"user_id": "john.doe@example.com", "hours": 0.25, "wer": [0.5, None]}
    assert adapters["user_john"].points == ["encoder.adapter_points.1", "encoder.adapter_points.2"]


def test_what_is_written_now_is_what_was_written_then(tmp_path: Path) -> None:
    """In every key and value, and in their order."""
    adapters = read_adapters(FOLDER / "two_adapters.pt")
    write_adapters(adapters.values(), tmp_path / "now.pt")
    then, now = (torch.load(path, weights_only=True) for path in (FOLDER / "two_adapters.pt", tmp_path / "now.pt"))
    for name in ("user_john", "decoder:user_j"):
        for one, two in zip(then.pop(name), now.pop(name), strict=True):
            assert list(one) == list(two) and all(torch.equal(one[key], two[key]) for key in one)
    assert repr(then) == repr(now)
    assert inspect_adapter(tmp_path / "now.pt") == inspect_adapter(FOLDER / "two_adapters.pt")
