"""After any sequence of operations: config, modules and saved model agree, and save -> restore -> same outputs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.blocks import adapter_parts, list_adapters, module_prefix
from nemo_ds2_adapters.adapters.enabling import enable_adapters, enabled_adapters, enabled_names, forward_both
from nemo_ds2_adapters.adapters.lifecycle import (
    average_adapters,
    copy_adapter,
    delete_adapter,
    rename_adapter,
)
from nemo_ds2_adapters.errors import AdapterNameError, InputError
from nemo_ds2_adapters.formats.file import load_adapter, save_adapter

NAMES = ["user_j", "user_john", "er", "u"]  # contained in each other
PREFIXES = ["", "decoder:", "encoder+decoder:"]


def states(model, name: str) -> list[dict[str, torch.Tensor]]:
    return [part.state_dict() for _, part in adapter_parts(model, name)]


def restored(model):
    """What NeMo makes of the model's config and weights, as in a `.nemo`."""
    other = type(model)(cfg=OmegaConf.create(OmegaConf.to_yaml(model.cfg))).eval()
    other.load_state_dict(model.state_dict(), strict=True)
    return other


def same_states(one: list[dict[str, torch.Tensor]], two: list[dict[str, torch.Tensor]]) -> bool:
    return len(one) == len(two) and all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in zip(one, two)
    )


@pytest.fixture
def two(base, linear, train):
    """`user_j` in the encoder and `user_john` in encoder and decoder, both trained."""
    add_adapter(base, "user_j", linear)
    add_adapter(base, "encoder+decoder:user_john", linear)
    train(base, "user_j")
    train(base, "user_john")
    return base


def test_delete(two, outputs, make_base, kind, linear) -> None:
    with enabled_adapters(two, "user_john"):
        alone = outputs(two)
    delete_adapter(two, "encoder:user_j")  # where adapters without a prefix are
    assert list_adapters(two) == two.get_enabled_adapters() == ["user_john"]
    assert torch.equal(outputs(two), alone)
    delete_adapter(two, "encoder+decoder:user_john")
    plain = make_base(kind)
    assert list(two.state_dict()) == list(plain.state_dict())
    assert torch.equal(outputs(two), outputs(plain))
    assert torch.equal(outputs(restored(two)), outputs(plain))
    assert two.cfg.adapters == {"global_cfg": {"adapter_meta_cfg": {"modules": {}}}}
    add_adapter(two, "user_j", linear)


def test_rename_keeps_place_and_outputs(two, linear, train, outputs) -> None:
    add_adapter(two, "last", linear)
    train(two, "last")
    before = outputs(two)
    rename_adapter(two, "user_j", "김")
    assert list_adapters(two) == ["김", "user_john", "last"]
    rename_adapter(two, "encoder+decoder:user_john", "encoder+decoder:user_j")
    rename_adapter(two, "last", "last")
    assert list_adapters(two) == ["김", "user_j", "last"]
    assert two.cfg.adapters.global_cfg.adapter_meta_cfg.modules == {"김": "", "user_j": "encoder+decoder", "last": ""}
    assert not [key for key in two.state_dict() if "user_john" in key]
    assert torch.equal(outputs(two), before)
    assert torch.equal(outputs(restored(two)), before)


def test_copy_is_disabled_equal_and_independent(two, outputs) -> None:
    before = outputs(two)
    copy_adapter(two, "user_john", "copy")
    assert enabled_names(two) == ["user_j", "user_john"]
    assert torch.equal(outputs(two), before)
    assert module_prefix(two, "copy") == "encoder+decoder"
    assert same_states(states(two, "copy"), states(two, "user_john"))
    with enabled_adapters(two, ["user_j", "copy"]):
        assert torch.equal(outputs(two), before)
    with torch.no_grad():
        next(adapter_parts(two, "copy")[0][1].parameters()).add_(1)
    assert torch.equal(outputs(two), before)


def test_average(two, linear, train) -> None:
    add_adapter(two, "third", linear)
    train(two, "third")
    average_adapters(two, ["user_j", "third"], "mean")
    average_adapters(two, ["user_j", "third"], "mostly", weights=[3, 1])
    average_adapters(two, ["user_j", "third"], "only", weights=[0, 0.5])
    assert not {"mean", "mostly", "only"} & set(enabled_names(two))
    for i, state in enumerate(states(two, "user_j")):
        for key, one in state.items():
            other = states(two, "third")[i][key]
            torch.testing.assert_close(states(two, "mean")[i][key], (one + other) / 2)
            torch.testing.assert_close(states(two, "mostly")[i][key], 0.75 * one + 0.25 * other)
            assert torch.equal(states(two, "only")[i][key], other)


def test_average_of_two_placements(make_base, mlp) -> None:
    model = make_base()
    add_adapter(model, "first", mlp | {"layers": "first"})
    add_adapter(model, "last", mlp | {"layers": "last"})
    with pytest.raises(InputError, match="cannot be averaged, they differ in in_features: 8 and 4"):
        average_adapters(model, ["first", "last"], "mean")


FAILURES = [
    (delete_adapter, ["user_jon"], AdapterNameError, "no adapter 'user_jon' in the model: did you mean 'user_joh"),
    (delete_adapter, ["decoder:user_j"], AdapterNameError, "did you mean 'user_j'"),
    (delete_adapter, ["global_cfg"], AdapterNameError, "no adapter 'global_cfg'"),
    (delete_adapter, [None], AdapterNameError, "no adapter None"),
    (rename_adapter, ["nobody", "x"], AdapterNameError, "it has user_j, user_john"),
    (rename_adapter, ["user_j", "user_john"], AdapterNameError, "exists already"),
    (rename_adapter, ["user_j", "0"], AdapterNameError, "weight names"),
    (rename_adapter, ["user_j", "decoder:x"], AdapterNameError, "give the name 'x' alone"),
    (rename_adapter, ["user_j", None], AdapterNameError, "not text"),
    (copy_adapter, ["user_j", "user_j"], AdapterNameError, "exists already"),
    (copy_adapter, ["nobody", "x"], AdapterNameError, "no adapter 'nobody'"),
    (average_adapters, [[], "x"], InputError, "name at least one"),
    (average_adapters, [["user_j", "user_john"], "x"], InputError, "differ in module: '' and 'encoder.decoder'"),
    (average_adapters, [["user_j"], "x", [1, 2]], InputError, "1 adapters and 2 weights"),
    (average_adapters, [["user_j"], "x", [-1]], InputError, "at least 0"),
    (average_adapters, [["user_j"], "x", [0]], InputError, "not all 0"),
    (average_adapters, [["user_j"], "x", [float("nan")]], InputError, "finite"),
    (enable_adapters, ["nobody"], AdapterNameError, "no adapter 'nobody'"),
    (enable_adapters, [["user_j", "nobody"]], AdapterNameError, "no adapter 'nobody'"),
]


def test_failure_changes_nothing(two, snapshot) -> None:
    before = snapshot(two)
    for operation, arguments, error, message in FAILURES:
        with pytest.raises(error, match=message):
            operation(two, *arguments)
        assert snapshot(two) == before, message


def test_model_without_adapters(base) -> None:
    assert list_adapters(base) == enabled_names(base) == []
    with pytest.raises(AdapterNameError, match="the model has none, add or load it first"):
        delete_adapter(base, "x")
    with enabled_adapters(base, None):
        pass
    assert "adapters" not in base.cfg


def test_adapter_whose_module_was_replaced_can_be_deleted(make_base, linear) -> None:
    model = make_base("conformer")  # whose decoder lets NeMo drop its adapters
    add_adapter(model, "decoder:a", linear)
    model.change_vocabulary([" ", "a"])
    delete_adapter(model, "a")
    assert list_adapters(model) == []
    restored(model)


def test_nemo_and_ours_in_turn(two, linear, outputs) -> None:
    """Adapters that NeMo adds, with its copies of the config, are handled like others."""
    two.add_adapter("by_nemo", OmegaConf.create(linear))
    rename_adapter(two, "by_nemo", "ours")
    two.set_enabled_adapters(enabled=False)
    two.set_enabled_adapters("ours", enabled=True)
    copy_adapter(two, "ours", "copy")
    two.add_adapter("again", OmegaConf.create(linear))
    delete_adapter(two, "user_j")
    assert list_adapters(two) == ["user_john", "ours", "copy", "again"]
    assert two.get_enabled_adapters() == ["again", "ours"]
    assert torch.equal(outputs(two), outputs(restored(two)))


def test_through_a_nemo_file(two, outputs, tmp_path) -> None:
    rename_adapter(two, "user_j", "user_john2")
    copy_adapter(two, "user_john", "user")
    delete_adapter(two, "user_john")
    enable_adapters(two, ["user", "user_john2"])
    two.save_to(str(tmp_path / "a.nemo"))
    other = type(two).restore_from(str(tmp_path / "a.nemo")).eval()
    assert list_adapters(other) == ["user_john2", "user"]
    assert torch.equal(outputs(other), outputs(two))


def test_heads(make_base, linear, head, train, outputs, snapshot, batch) -> None:
    model = make_base()
    add_adapter(model, "feature", linear)
    for name, mode in [("one", "replace"), ("two", "replace"), ("three", "add")]:
        add_adapter(model, f"decoder:{name}", head | {"mode": mode})
    for name in list_adapters(model):
        train(model, name)
    with pytest.raises(InputError, match="one, two, three are enabled"):
        outputs(model)
    before = snapshot(model)
    with pytest.raises(InputError, match="one, three are head adapters, and only one can run at a time"):
        enable_adapters(model, ["one", "feature", "three"])
    with pytest.raises(InputError, match="differ in mode: 'replace' and 'add'"):
        average_adapters(model, ["one", "three"], "mean")
    with pytest.raises(InputError, match="add it as decoder:<name>"):
        add_adapter(model, "encoder+decoder:four", head)
    assert snapshot(model) == before
    average_adapters(model, ["one", "two"], "mean")
    seen = []
    for name in ("one", "two", "three", "mean"):
        with enabled_adapters(model, ["feature", name]), torch.no_grad():
            base, own, lengths = forward_both(model, **batch)
            assert torch.equal(own, outputs(model)) and lengths.tolist() == model(**batch)[1].tolist()
            seen.append(own)
    assert len({each.numpy().tobytes() for each in seen}) == 4
    with enabled_adapters(model, "feature"):
        assert torch.equal(base, outputs(model))
        with pytest.raises(InputError, match="no personal output: enable a head adapter"):
            forward_both(model, **batch)
    with pytest.raises(InputError, match="decoder is a ConvASRDecoder, which takes no head adapters"):
        forward_both(make_base("conformer"), **batch)


NAME = st.sampled_from(NAMES)
OPERATION = st.one_of(
    st.tuples(st.just("add"), NAME, st.sampled_from(PREFIXES), st.integers(1, 2)),
    st.tuples(st.just("add head"), NAME, st.sampled_from(["add", "replace"])),
    st.tuples(st.just("delete"), NAME),
    st.tuples(st.sampled_from(["rename", "copy"]), NAME, NAME),
    st.tuples(st.just("average"), NAME, NAME, NAME),
    st.tuples(st.just("enable"), st.lists(NAME, max_size=3)),
    st.tuples(st.just("nemo enable"), NAME, st.booleans()),
    st.tuples(st.just("reload"), NAME, NAME),
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(OPERATION, min_size=3, max_size=8))
def test_any_sequence(base, train, outputs, linear, head, tmp_path, operations) -> None:
    """The same model for all sequences: each begins by deleting what the one before left."""
    model = base
    for name in list_adapters(model):
        delete_adapter(model, name)
    for name, *arguments in operations:
        try:
            carry_out(model, name, arguments, linear, head, tmp_path / "sequence.pt")
        except InputError:
            continue
        if name.startswith("add"):
            train(model, arguments[0])
    names = list_adapters(model)
    found = {
        path.partition(".adapter_layer.")[2].partition(".")[0] for path in model.state_dict() if "adapter_l" in path
    }
    assert found == set(names)
    assert set(model.cfg.adapters.global_cfg.adapter_meta_cfg.modules if names else []) == set(names)
    assert sorted(enabled_names(model)) == model.get_enabled_adapters()
    other = restored(model)
    assert list_adapters(other) == names
    heads = [name for name in enabled_names(model) if "mode" in model.cfg.adapters[name]]
    if len(heads) > 1:
        for one in (model, other):
            with pytest.raises(InputError, match=f"head adapters {', '.join(heads)} are enabled"):
                outputs(one)
            enable_adapters(one, [name for name in enabled_names(one) if name not in heads[1:]])
    assert torch.equal(outputs(other), outputs(model))


def carry_out(
    model, name: str, arguments: list[Any], linear: dict[str, Any], head: dict[str, Any], path: Path
) -> None:
    match name, *arguments:
        case "add", adapter, prefix, dim:
            add_adapter(model, prefix + adapter, linear | {"dim": dim})
        case "add head", adapter, mode:
            add_adapter(model, f"decoder:{adapter}", head | {"mode": mode})
        case "delete", adapter:
            delete_adapter(model, adapter)
        case "rename", old, new:
            rename_adapter(model, old, new)
        case "copy", source, target:
            copy_adapter(model, source, target)
        case "average", one, two, target:
            average_adapters(model, [one, two], target, weights=[2, 1])
        case "enable", names:
            enable_adapters(model, names)
        case "nemo enable", adapter, enabled if adapter in list_adapters(model):
            model.set_enabled_adapters(adapter, enabled)
        case "reload", adapter, other:
            save_adapter(model, adapter, path)
            load_adapter(model, path, as_name=other)
