"""The original's five-key files."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from nemo_ds2_adapters.adapters.adapter import HEAD, Adapter
from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.attached import without_info
from nemo_ds2_adapters.adapters.enabling import enabled_adapters
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.file import load_adapter, save_adapter, write_adapters
from nemo_ds2_adapters.formats.original import STATE_KEY, to_original
from nemo_ds2_adapters.formats.reading import ORIGINAL, inspect_adapter, read_adapters

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
    (adapter,) = read_adapters(tmp_path / "user_john_adapter.pt").values()
    assert (adapter.name, adapter.module) == ("user_john", "decoder")
    sizes = {"in_features": 8, "hidden_dims": [6, 5], "num_classes_with_blank": 4}
    assert adapter.config == {"_target_": HEAD, "mode": "replace", "enabled": True, **sizes}
    (state,) = adapter.weights.values()
    assert list(state) == [f"module.{i}.{kind}" for i in (0, 3, 6) for kind in ("weight", "bias")]
    for one, two in zip(state.values(), content["adapter_state_dict"].values()):
        assert torch.equal(one, two)
    about = inspect_adapter(tmp_path / "user_john_adapter.pt")
    assert about["format"] == "original" and about["adapters"]["user_john"]["parameters"] == 54 + 35 + 24


def test_what_is_written_is_what_was_read(tmp_path) -> None:
    content = original(["0", "3", "6"])
    torch.save(content, tmp_path / "a.pt")
    (adapter,) = read_adapters(tmp_path / "a.pt").values()
    written = to_original(adapter)
    assert {k: v for k, v in written.items() if k != "adapter_state_dict"} == {
        k: v for k, v in content.items() if k != "adapter_state_dict"
    }
    torch.save(written, tmp_path / "b.pt")
    assert read_adapters(tmp_path / "b.pt") == {"user_john": adapter}


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


def test_original_as_a_head(make_base, outputs, batch, tmp_path) -> None:
    """What the original trained on the recurrent output runs here on the same, through every format and reader."""
    models = {name: make_base() for name in ("read", "ours", "nemo", "again")}
    width, classes = models["read"].decoder.output.in_features, models["read"].decoder.num_classes_with_blank
    names = ["user_j", "user_john", "john", "er"]  # contained in each other
    for i, name in enumerate(names):
        content = original(["0", "3", "6"], [width, 3 + i, 5, classes]) | {"adapter_name": name}
        torch.save(content, tmp_path / f"{name}_adapter.pt")
        load_adapter(models["read"], tmp_path / f"{name}_adapter.pt")
        save_adapter(models["read"], name, tmp_path / "ours.pt")
        load_adapter(models["ours"], tmp_path / "ours.pt")
        models["nemo"].load_adapters(str(tmp_path / "ours.pt"))
        models["read"].save_adapters(str(tmp_path / "nemo.pt"), name)
        load_adapter(models["again"], tmp_path / "nemo.pt")
        write_adapters([without_info(models["again"], name)], tmp_path / "back.pt", ORIGINAL)
        back = torch.load(tmp_path / "back.pt", weights_only=True)
        assert {**back, STATE_KEY: 0} == {**content, STATE_KEY: 0}
        for value, expected in zip(back[STATE_KEY].values(), content[STATE_KEY].values(), strict=True):
            assert torch.equal(value, expected)
    features, lengths = models["read"].preprocessor(
        input_signal=batch["input_signal"], length=batch["input_signal_length"]
    )
    recurrent = models["read"].encoder(audio_signal=features, length=lengths)[0].transpose(1, 2)
    seen = []
    for i, name in enumerate(names):
        sizes = [width, 3 + i, 5]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU(), nn.Dropout())]
        network = nn.Sequential(*hidden, nn.Linear(5, classes)).eval()
        network.load_state_dict(torch.load(tmp_path / f"{name}_adapter.pt", weights_only=True)[STATE_KEY])
        got = []
        for model in models.values():
            with enabled_adapters(model, name):
                got.append(outputs(model))
            assert torch.equal(got[-1], got[0])
        torch.testing.assert_close(got[0], network(recurrent).log_softmax(-1).detach())
        seen.append(got[0])
    assert not torch.equal(seen[0], seen[-1])


def test_head_that_does_not_fit(make_base, snapshot, tmp_path) -> None:
    for kind, message in [
        ("deepspeech2", "num_classes_with_blank=4 does not fit this decoder, which has 29"),
        ("conformer", "MLPHeadAdapter"),
    ]:
        model = make_base(kind)
        width = model.decoder.output.in_features if kind == "deepspeech2" else 8
        torch.save(original(["0", "3", "6"], [width, 6, 5, 4]), tmp_path / "a.pt")
        before = snapshot(model)
        with pytest.raises(AdapterFileError, match=message):
            load_adapter(model, tmp_path / "a.pt")
        assert snapshot(model) == before


def test_only_heads_are_written(base, linear, tmp_path) -> None:
    add_adapter(base, "a", linear)
    with pytest.raises(InputError, match="MLPHeadAdapter with mode=replace"):
        write_adapters([without_info(base, "a")], tmp_path / "a.pt", ORIGINAL)
    adds = Adapter("a", {"_target_": HEAD, "mode": "add"}, {"0": {}}, "decoder")
    with pytest.raises(InputError, match="MLPHeadAdapter with mode=replace"):
        to_original(adds)
