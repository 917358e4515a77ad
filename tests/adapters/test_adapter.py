"""The value: equality, algebra, and that its zero is the base."""

import random
from dataclasses import replace

import pytest
import torch

from nemo_ds2_adapters.adapters.adapter import (
    Adapter,
    Info,
    check_alike,
    is_additive,
    mean,
    renamed,
    towards,
    with_metadata,
    zero,
)
from nemo_ds2_adapters.adapters.attach import add_adapter, attach
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.detach import detach
from nemo_ds2_adapters.adapters.enabling import enabled_adapters
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.errors import AdapterNameError, InputError
from tests.fixtures import HEAD, LINEAR, MLP, REPLACING, STRATEGIES

ABOUT = Info("f" * 64, {"vocabulary": ["a"]}, "2026-01-01T00:00:00+00:00", {"torch": "2"}, {"user_id": "ann"})


def make(number: float, name: str = "ann", **config: object) -> Adapter:
    weights = {
        point: {"module.0.weight": torch.full((2, 3), number), "module.2.weight": torch.full((3, 2), 2 * number)}
        for point in ("encoder.adapter_points.1", "encoder.adapter_points.2")
    }
    return Adapter(name, {"_target_": MLP, "enabled": True, **config}, weights, info=ABOUT)


def test_equality_is_of_name_architecture_and_weights() -> None:
    assert make(1.0) == make(1.0) == replace(make(1.0), info=None)
    assert make(1.0, enabled=False) == make(1.0)  # whether it runs is of the model, not of the adapter
    turned = replace(make(1.0), weights=dict(reversed(make(1.0).weights.items())))
    assert turned == make(1.0)
    for other in (
        make(1.5),
        make(1.0, "bob"),
        make(1.0, dropout=0.1),
        replace(make(1.0), module="encoder"),
        replace(make(1.0), weights={"encoder.adapter_points.1": make(1.0).weights["encoder.adapter_points.1"]}),
        replace(make(1.0), weights={p: {k: v.double() for k, v in s.items()} for p, s in make(1.0).weights.items()}),
        "ann",
    ):
        assert make(1.0) != other


def test_algebra() -> None:
    one, other = make(1.0), make(4.0, "bob")
    assert mean([one, other]) == make(2.5)
    assert mean([one, other], [3, 1]) == make(1.75)
    assert mean([one]) == one
    assert towards(one, other, 0.0) == one and towards(one, other, 1.0) == renamed(other, "ann")
    assert towards(one, other, 0.25) == make(1.75)
    assert renamed(one, "bob").name == "bob" and one.name == "ann"
    assert with_metadata(one, {"user_id": "x"}).metadata == {"user_id": "x"} and one.metadata == {"user_id": "ann"}
    assert one.parameters == 24 and one.points == list(one.weights) and one.full_name == "ann"
    counter = replace(one, weights={"0": {"norm.num_batches_tracked": torch.tensor(3)}})
    assert counter.points is None and mean([counter, counter]) == counter


def test_mean_is_in_double_precision() -> None:
    values = [replace(make(0.0), weights={"0": {"a": torch.tensor([x], dtype=torch.float16)}}) for x in (2048.0, 1.0)]
    assert mean(values * 8).weights["0"]["a"].item() == 1024.0  # in half precision, 2048 + 1 is 2048


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean([]), "name at least one"),
        (lambda: mean([make(1.0)], [1, 2]), "1 adapters and 2 weights"),
        (lambda: mean([make(1.0)], [float("nan")]), "finite"),
        (lambda: mean([make(1.0), make(1.0, dropout=0.5)]), "differ in dropout: None and 0.5"),
        (lambda: towards(make(1.0), make(1.0), 1.5), "t=1.5"),
        (
            lambda: check_alike(make(1.0), replace(make(1.0), info=replace(ABOUT, fingerprint="0"))),
            "different base models",
        ),
        (lambda: with_metadata(replace(make(1.0), info=None), {}), "without metadata"),
        (lambda: renamed(make(1.0), "0"), "weight names"),
    ],
)
def test_what_makes_no_sense(call, message) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_name_that_ends_a_weight_name() -> None:
    adapter = replace(make(1.0), weights={"0": {"linear_q.weight": torch.ones(1)}})
    with pytest.raises(AdapterNameError, match="linear_q"):
        renamed(adapter, "q")


ADDING = {"_target_": f"{STRATEGIES}.ResidualAddAdapterStrategy", "stochastic_depth": 0.0, "l2_lambda": 0.0}
TYPES = [
    *(
        ("", {"_target_": MLP, "hidden_dims": [5, 4], "norm_position": norm, "layers": layers}, True)
        for norm in ("pre", "post", "none")
        for layers in ("first", "all")
    ),
    ("", {"_target_": MLP, "hidden_dims": [3], "activation": "tanh", "adapter_strategy": ADDING}, True),
    ("", {"_target_": MLP, "hidden_dims": [3, 3, 3], "layers": [0, 1]}, True),
    ("", {"_target_": MLP, "hidden_dims": [3], "adapter_strategy": REPLACING}, False),
    ("", {"_target_": LINEAR, "dim": 3}, True),
    ("", {"_target_": LINEAR, "dim": 3, "norm_position": "post", "activation": "relu"}, True),
    ("decoder", {"_target_": LINEAR, "dim": 3}, True),
    ("encoder+decoder", {"_target_": LINEAR, "dim": 3}, True),
    ("decoder", {"_target_": LINEAR, "dim": 3, "adapter_strategy": REPLACING}, False),
    ("decoder", {"_target_": HEAD, "hidden_dims": [4]}, True),
    ("decoder", {"_target_": HEAD, "hidden_dims": [4, 3], "mode": "add"}, True),
    ("decoder", {"_target_": HEAD, "hidden_dims": [4], "mode": "replace"}, False),
]


def disturbed(adapter: Adapter, dice: random.Random) -> Adapter:
    """Other weights, in another order: of formats that sort them."""
    torch.manual_seed(dice.randrange(2**31))
    weights = {}
    for point, state in adapter.weights.items():
        keys = list(state)
        dice.shuffle(keys)
        weights[point] = {key: torch.randn(state[key].shape) for key in keys}
    return replace(adapter, weights=weights)


@pytest.mark.parametrize(("module", "config", "adds"), TYPES)
def test_zero_is_the_base_bit_for_bit(make_base, outputs, module, config, adds) -> None:
    model = make_base()
    base = outputs(model)
    add_adapter(model, f"{module}:ann" if module else "ann", config)
    fresh = attached_adapter(model, "ann")
    detach(model, "ann")
    dice = random.Random(str(config))
    for round_ in range(3):
        adapter = disturbed(fresh, dice)
        assert is_additive(adapter) == adds
        if not adds:
            with pytest.raises(InputError, match="is not known to add to what the base computes"):
                zero(adapter)
            continue
        attach(model, adapter, f"trained_{round_}")
        assert not torch.equal(outputs(model), base)
        with enabled_adapters(model, None):
            attach(model, zero(adapter), f"zero_{round_}")
        with enabled_adapters(model, f"zero_{round_}"):
            assert outputs(model).numpy().tobytes() == base.numpy().tobytes()
        for name in (f"trained_{round_}", f"zero_{round_}"):
            detach(model, name)
        assert is_additive(zero(adapter)) and zero(zero(adapter)) == zero(adapter) != adapter


def test_type_of_which_nothing_is_known(make_base) -> None:
    model = make_base("conformer")
    where = "nemo.collections.asr.parts.submodules.adapters.multi_head_attention_adapter_module."
    cfg = {"_target_": where + "RelPositionMultiHeadAttentionAdapter", "n_head": 2, "n_feat": 8, "dropout_rate": 0.0}
    add_adapter(model, "user", cfg)
    with pytest.raises(InputError, match="is not known to add"):
        zero(attached_adapter(model, "user"))


def test_out_of_one_model_into_another(base, make_base, kind, linear, train, outputs, snapshot) -> None:
    add_adapter(base, "encoder+decoder:ann", linear)
    add_adapter(base, "bob", linear)
    train(base, "ann")
    with enabled_adapters(base, None):  # a value says that it is enabled, whether it is or not
        adapter = attached_adapter(base, "encoder+decoder:ann", {"seconds": 3})
    assert (adapter.name, adapter.module, adapter.metadata) == ("ann", "encoder+decoder", {"seconds": 3})
    assert adapter.info.fingerprint == fingerprint(base) and adapter.config["enabled"] is True
    before = snapshot(base)
    for state in attached_adapter(base, "ann").weights.values():
        for value in state.values():
            value.fill_(7)  # copies: the model does not notice
            assert not value.requires_grad
    assert snapshot(base) == before
    other = make_base(kind)
    untouched = snapshot(other)
    assert attach(other, adapter, "x") == "x" and attach(other, adapter) == "ann"
    assert attached_adapter(other, "x") == renamed(adapter, "x")
    with enabled_adapters(other, "x"), enabled_adapters(base, "ann"):
        assert torch.equal(outputs(other), outputs(base))
    for name in ("x", "ann"):
        detach(other, name)
    detach(other, "ann")  # what is not there is skipped
    assert other.state_dict().keys() == make_base(kind).state_dict().keys() and untouched[2] == snapshot(other)[2]
