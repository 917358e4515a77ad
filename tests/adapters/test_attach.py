"""Adding an adapter: all or nothing."""

from dataclasses import dataclass

import pytest
import torch
from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig
from omegaconf import OmegaConf

from nemo_ds2_adapters.adapters.attach import add_adapter, merge_global_cfg
from nemo_ds2_adapters.adapters.blocks import adapter_parts, list_adapters
from nemo_ds2_adapters.errors import AdapterNameError, InputError
from nemo_ds2_adapters.modules import MLPAdapterConfig


@dataclass
class Half:
    """A config that is only half of one."""

    dim: int = 3


def test_same_model_as_with_nemo(base, make_base, kind, linear, outputs) -> None:
    add_adapter(base, "user_john", linear)
    add_adapter(base, "decoder:user_j", linear)
    nemo = make_base(kind)
    nemo.add_adapter("user_john", OmegaConf.create(linear))
    nemo.add_adapter("decoder:user_j", OmegaConf.create(linear))
    assert list(base.state_dict()) == list(nemo.state_dict())
    assert base.cfg.adapters == nemo.cfg.adapters
    assert base.get_enabled_adapters() == nemo.get_enabled_adapters() == ["user_j", "user_john"]
    assert torch.equal(outputs(base), outputs(nemo))


FAILURES = [
    ("0", LinearAdapterConfig(0, dim=3), "weight names"),
    ("joint:x", LinearAdapterConfig(0, dim=3), "has no module 'joint': expected encoder, decoder"),
    ("preprocessor:x", LinearAdapterConfig(0, dim=3), "has no module 'preprocessor'"),
    ("encoder+joint:x", LinearAdapterConfig(0, dim=3), "has no module 'joint'"),
    ("x", {}, "no _target_"),
    ("x", None, "NoneType: give a dataclass or a dict"),
    ("x", ["a"], "list: give a dataclass or a dict"),
    ("x", Half(), "no _target_"),
    ("x", LinearAdapterConfig, "Missing mandatory value: dim"),
    ("x", {"_target_": "os.system"}, "does not take 'os.system', it takes LinearAdapter"),
    ("x", {"_target_": "torch.nn.Identity", "in_features": 1}, "does not take 'torch.nn.Identity'"),
    ("x", {"_target_": "nowhere.Adapter"}, "there is no class 'nowhere.Adapter'"),
    ("x", {"_target_": "Adapter"}, "there is no class 'Adapter'"),
    ("x", {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "in_features": "${nowhere}"}, "nowhere"),
    ("x", LinearAdapterConfig(0, dim=3, norm_position="middle"), "cannot be built"),
    ("encoder+decoder:x", LinearAdapterConfig(0, dim=-1), "cannot be built"),
]


@pytest.mark.parametrize("earlier", [False, True], ids=["no adapters", "with an adapter"])
def test_failure_changes_nothing(base, linear, snapshot, earlier) -> None:
    if earlier:
        add_adapter(base, "earlier", linear)
    before = snapshot(base)
    for name, cfg, message in FAILURES:
        with pytest.raises(InputError, match=message):
            add_adapter(base, name, cfg, global_cfg={"check_encoder_adapter": False})
        assert snapshot(base) == before, message


def test_duplicate_changes_nothing(base, linear, snapshot) -> None:
    add_adapter(base, "user_john", linear)
    before = snapshot(base)
    for name in ("user_john", "encoder:user_john", "decoder:user_john"):
        with pytest.raises(AdapterNameError, match="exists already"):
            add_adapter(base, name, linear | {"dim": 7})
    assert snapshot(base) == before


def test_failure_in_the_second_module_takes_the_first_back(base, linear, snapshot, monkeypatch) -> None:
    def fail(name, cfg):
        raise RuntimeError("out of memory")

    before = snapshot(base)
    monkeypatch.setattr(base.decoder, "add_adapter", fail)
    with pytest.raises(InputError, match="out of memory"):
        add_adapter(base, "encoder+decoder:x", linear)
    assert snapshot(base) == before


def test_interruption_is_not_swallowed_and_changes_nothing(base, linear, snapshot, monkeypatch) -> None:
    def interrupt(name, cfg):
        raise KeyboardInterrupt

    before = snapshot(base)
    monkeypatch.setattr(base.encoder, "add_adapter", interrupt)
    with pytest.raises(KeyboardInterrupt):
        add_adapter(base, "x", linear)
    assert snapshot(base) == before


def test_module_that_takes_no_adapters_is_named(make_base) -> None:
    model = make_base("deepspeech2", _target_="nemo_ds2_adapters.modules.DeepSpeech2Encoder")
    with pytest.raises(InputError, match=r"DeepSpeech2Encoder.*replace_adapter_compatible_modules"):
        add_adapter(model, "x", MLPAdapterConfig())
    model.replace_adapter_compatible_modules()
    add_adapter(model, "x", MLPAdapterConfig())
    assert list_adapters(model) == ["x"]


def test_name_that_ends_a_weight_name_of_its_type(make_base, snapshot) -> None:
    model = make_base("conformer")
    cfg = {"_target_": "nemo.collections.asr.parts.submodules.adapters.multi_head_attention_adapter_module."}
    cfg["_target_"] += "RelPositionMultiHeadAttentionAdapter"
    cfg |= {"n_head": 2, "n_feat": 8, "dropout_rate": 0.0}
    before = snapshot(model)
    with pytest.raises(AdapterNameError, match="linear_q"):
        add_adapter(model, "q", cfg)
    assert snapshot(model) == before
    add_adapter(model, "user_q", cfg)


def test_global_cfg_is_merged(base, linear) -> None:
    add_adapter(base, "decoder:a", linear, global_cfg={"check_encoder_adapter": False})
    add_adapter(base, "b", linear, global_cfg={"check_decoder_adapter": False})
    merge_global_cfg(base, OmegaConf.create({"note": "kept"}))
    assert base.cfg.adapters.global_cfg == {
        "adapter_meta_cfg": {"modules": {"a": "decoder", "b": ""}},
        "note": "kept",
        "check_encoder_adapter": False,
        "check_decoder_adapter": False,
    }


def test_new_adapter_has_the_mode_and_precision_of_the_base(base, linear) -> None:
    base.half()
    add_adapter(base, "x", linear)
    parts = [part for _, part in adapter_parts(base, "x")]
    assert parts and not any(part.training for part in parts)
    assert all(p.dtype == torch.float16 and p.requires_grad for part in parts for p in part.parameters())


def test_dataclass_dict_and_dictconfig_are_the_same(base, linear) -> None:
    add_adapter(base, "a", LinearAdapterConfig(None, dim=3))
    add_adapter(base, "b", OmegaConf.structured(LinearAdapterConfig(0, dim=3)))
    add_adapter(base, "c", OmegaConf.create({"size": 3, "x": {**linear, "dim": "${size}"}}).x)
    assert base.cfg.adapters.a == base.cfg.adapters.b
    assert base.cfg.adapters.c.dim == 3


def test_disabled_from_the_start(base, linear) -> None:
    add_adapter(base, "a", linear | {"enabled": False})
    assert base.get_enabled_adapters() == []


@pytest.mark.parametrize("common", [{"adapter_meta_cfg": {}}, ["a"], {"x": object()}])
def test_bad_global_cfg_changes_nothing(base, linear, snapshot, common) -> None:
    before = snapshot(base)
    with pytest.raises(InputError, match="global_cfg"):
        add_adapter(base, "a", linear, global_cfg=common)
    with pytest.raises(InputError, match="global_cfg"):
        merge_global_cfg(base, common)
    assert snapshot(base) == before
