"""The original's five-key files."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from nemo_ds2_adapters.adapters import add_adapter, inspect_adapter, save_original_adapter
from nemo_ds2_adapters.adapters.contents import FileContents, StoredAdapter
from nemo_ds2_adapters.adapters.original import HEAD_TARGET, to_original
from nemo_ds2_adapters.adapters.reading import read_adapter_file
from nemo_ds2_adapters.errors import AdapterFileError, InputError

SIZES = [8, 6, 5, 4]  # input, hidden, hidden, output


def original(names: list[str], sizes: list[int] = SIZES) -> dict[str, Any]:
    """What the original writes, its Linear layers called `names`."""
    state = torch.nn.Sequential(*(torch.nn.Linear(i, o) for i, o in pairwise(sizes))).state_dict()
    renamed = type(state)((key.replace(key[0], names[int(key[0])], 1), value) for key, value in state.items())
    renamed._metadata = state._metadata  # as in a real one
    return {
        "adapter_state_dict": renamed,
        "input_dim": sizes[0],
        "hidden_dims": sizes[1:-1],
        "output_dim": sizes[-1],
        "adapter_name": "user_john",
    }


@pytest.mark.parametrize(
    "names", [["0", "3", "6"], ["fc1", "fc2", "out"], ["m.layers.0.linear", "m.layers.1.linear", "m.x"]]
)
def test_any_naming_of_the_layers_is_read(tmp_path, names) -> None:
    content = original(names)
    torch.save(content, tmp_path / "user_john_adapter.pt")
    (adapter,) = read_adapter_file(tmp_path / "user_john_adapter.pt").adapters.values()
    assert (adapter.name, adapter.prefix) == ("user_john", "decoder")
    assert adapter.config == {"_target_": HEAD_TARGET, "hidden_dims": [6, 5], "mode": "replace", "enabled": True}
    (state,) = adapter.states
    assert list(state) == [f"module.{i}.{kind}" for i in (0, 3, 6) for kind in ("weight", "bias")]
    for one, two in zip(state.values(), content["adapter_state_dict"].values()):
        assert torch.equal(one, two)
    about = inspect_adapter(tmp_path / "user_john_adapter.pt")
    assert about["format"] == "original" and about["adapters"]["user_john"]["parameters"] == 54 + 35 + 24


def test_what_is_written_is_what_was_read(tmp_path) -> None:
    content = original(["0", "3", "6"])
    torch.save(content, tmp_path / "a.pt")
    (adapter,) = read_adapter_file(tmp_path / "a.pt").adapters.values()
    written = to_original(adapter)
    assert {k: v for k, v in written.items() if k != "adapter_state_dict"} == {
        k: v for k, v in content.items() if k != "adapter_state_dict"
    }
    torch.save(written, tmp_path / "b.pt")
    again = read_adapter_file(tmp_path / "b.pt")
    assert isinstance(again, FileContents)
    assert all(torch.equal(v, again.adapters["user_john"].states[0][k]) for k, v in adapter.states[0].items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("hidden_dims"), "lacks hidden_dims"),
        (lambda c: c.update(hidden_dims=6), "declares sizes 8, 6, 4"),
        (lambda c: c.update(hidden_dims=[]), "1 to 3 hidden sizes"),
        (lambda c: c.update(hidden_dims=[6, 5, 5, 5]), "1 to 3 hidden sizes"),
        (lambda c: c.update(input_dim=-8), "positive numbers"),
        (lambda c: c.update(input_dim=True), "positive numbers"),
        (lambda c: c.update(hidden_dims=[6, 10**12]), "declares Linear layers"),
        (lambda c: c.update(output_dim=5), "declares Linear layers"),
        (lambda c: c.update(adapter_name=3), "adapter_name 3 is not text"),
        (lambda c: c.update(adapter_state_dict=[]), "is not a state dict"),
        (lambda c: c["adapter_state_dict"].pop("0.bias"), "0.bias is odd"),
        (lambda c: c["adapter_state_dict"].update({"norm.running_mean": torch.ones(1)}), "norm.running_mean is odd"),
        (lambda c: c["adapter_state_dict"].update({"0.bias": torch.ones(7)}), "declares Linear layers"),
        (lambda c: c["adapter_state_dict"]["3.weight"].fill_(torch.nan), "not finite"),
    ],
)
def test_unsound_files_are_refused(tmp_path, change, message) -> None:
    content = original(["0", "3", "6"])
    with torch.no_grad():
        change(content)
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(AdapterFileError, match=message):
        inspect_adapter(tmp_path / "a.pt")


def test_only_heads_are_written(base, linear, tmp_path) -> None:
    add_adapter(base, "a", linear)
    with pytest.raises(InputError, match="MLPHeadAdapter with mode=replace"):
        save_original_adapter(base, "a", tmp_path / "a.pt")
    adds = StoredAdapter("a", "decoder", {"_target_": HEAD_TARGET, "mode": "add"}, [{}])
    with pytest.raises(InputError, match="MLPHeadAdapter with mode=replace"):
        to_original(adds)
