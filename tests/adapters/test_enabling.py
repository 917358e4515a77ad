"""Which adapters run, and that asking for it sees every change."""

import statistics
import time

import pytest
import torch
from omegaconf import OmegaConf

from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.adapters.enabling import enable_adapters, enabled_adapters, enabled_names
from nemo_ds2_adapters.adapters.lifecycle import delete_adapter, rename_adapter
from nemo_ds2_adapters.errors import AdapterNameError


@pytest.fixture
def three(base, linear, train):
    for name in ("a", "decoder:b", "encoder+decoder:c"):
        add_adapter(base, name, linear)
        train(base, name[-1])
    return base


def test_only_the_named_ones_run(three, outputs, make_base, kind) -> None:
    everything = outputs(three)
    with enabled_adapters(three, None) as model:
        assert model is three
        assert torch.equal(outputs(three), outputs(make_base(kind)))
    seen = [everything]
    for names in ("a", ["decoder:b"], ["c", "a"]):
        with enabled_adapters(three, names):
            assert set(enabled_names(three)) == {name[-1] for name in names}
            assert three.get_enabled_adapters() == sorted(enabled_names(three))
            seen.append(outputs(three))
        assert torch.equal(outputs(three), everything)
    assert not any(torch.equal(one, two) for i, one in enumerate(seen) for two in seen[:i])


def test_several_run_in_the_order_of_the_list(three, outputs) -> None:
    with enabled_adapters(three, ["a", "c"]):
        one = outputs(three)
    with enabled_adapters(three, ["c", "a"]):
        assert torch.equal(outputs(three), one)


def test_exception_and_nesting_restore(three) -> None:
    enable_adapters(three, ["a", "c"])
    with pytest.raises(RuntimeError), enabled_adapters(three, "b"):
        with enabled_adapters(three, None):
            assert enabled_names(three) == []
        assert enabled_names(three) == ["b"]
        raise RuntimeError
    assert enabled_names(three) == ["a", "c"]
    with pytest.raises(AdapterNameError), enabled_adapters(three, ["b", "nobody"]):
        pytest.fail("the block ran")
    assert enabled_names(three) == ["a", "c"]


def test_adapters_that_come_and_go_in_the_block(three, linear) -> None:
    with enabled_adapters(three, "b"):
        delete_adapter(three, "a")
        rename_adapter(three, "c", "d")
        add_adapter(three, "new", linear)
    assert enabled_names(three) == ["b", "new"]  # d was disabled, and is not the c that was enabled


def test_returns_what_was_enabled(three) -> None:
    assert enable_adapters(three, "b") == ["a", "b", "c"]
    assert enable_adapters(three, []) == ["b"]


def test_every_way_of_changing_it_is_seen(three, outputs, make_base, kind) -> None:
    """NeMo's own methods, of the model and of its modules, and the config itself."""
    plain = outputs(make_base(kind))
    enable_adapters(three, "a")
    alone = outputs(three)
    assert not torch.equal(alone, plain)
    three.set_enabled_adapters(enabled=False)
    assert torch.equal(outputs(three), plain) and enabled_names(three) == []
    three.encoder.set_enabled_adapters("a", enabled=True)
    assert torch.equal(outputs(three), alone) and enabled_names(three) == ["a"]
    three.cfg.adapters.a.enabled = False
    assert torch.equal(outputs(three), plain) and enabled_names(three) == []
    three.cfg.adapters["a"] = {**three.cfg.adapters["a"], "enabled": True}
    assert torch.equal(outputs(three), alone) and enabled_names(three) == ["a"]
    three.decoder.set_enabled_adapters("a", enabled=False)
    assert torch.equal(outputs(three), plain)
    three.cfg = OmegaConf.create(OmegaConf.to_yaml(three.cfg))
    enable_adapters(three, "a")
    assert torch.equal(outputs(three), alone)


def seconds(task) -> float:
    start = time.process_time()
    task()
    return time.process_time() - start


def test_cost_does_not_grow_with_the_attached(make_base, linear, outputs) -> None:
    """Loosely; benchmarks/adapter_files.py measures."""
    model = make_base()
    add_adapter(model, "x", linear)
    one = statistics.median(seconds(lambda: outputs(model)) for _ in range(9))
    for i in range(60):
        add_adapter(model, f"user_{i}", linear | {"enabled": False})
    many = statistics.median(seconds(lambda: outputs(model)) for _ in range(9))
    assert many < 2 * one
    names = list_adapters(model)
    slow = min(seconds(lambda: model.set_enabled_adapters(names[0], True)) for _ in range(3))
    quick = min(seconds(lambda name=name: enable_adapters(model, name)) for name in names[:30])
    assert quick < slow
