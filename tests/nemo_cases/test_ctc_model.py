"""The cases NeMo's own tests state for a CTC model with encoder and decoder adapters, with our model under test.

They follow NVIDIA/NeMo's `tests/collections/asr/mixins/adapters` and `tests/core/mixins/adapters` in what they
expect, not in how: there the model under test is a Citrinet, a Conformer or a stub.
"""

from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.collections.asr.parts.submodules.adapters.multi_head_attention_adapter_module import (
    MultiHeadAttentionAdapterConfig,
)
from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig
from nemo.core.classes.mixins.access_mixins import AccessMixin
from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin, get_registered_adapter, register_adapter
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters.modules import DeepSpeech2Encoder, DeepSpeech2EncoderAdapter, MLPAdapterConfig

ModelMaker = Callable[..., EncDecCTCModel]
MODULES = ("", "encoder:", "decoder:")
in_each_module = pytest.mark.parametrize("module", MODULES, ids=["default", "encoder", "decoder"])


def linear(**options: Any) -> DictConfig:
    return OmegaConf.structured(LinearAdapterConfig(in_features=8, dim=4, **options))


def mlp(**options: Any) -> DictConfig:
    return OmegaConf.structured(MLPAdapterConfig(hidden_dims=[4], **options))


def logprobs(model: EncDecCTCModel, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch)[0]


def module_of(model: EncDecCTCModel, name: str) -> str:
    return model.cfg.adapters.global_cfg.adapter_meta_cfg.modules[name]


@in_each_module
@pytest.mark.parametrize("make_cfg", [linear, mlp])
def test_each_adapter_adds_weights(model: EncDecCTCModel, module: str, make_cfg: Callable[[], DictConfig]) -> None:
    sizes = [model.num_weights]
    for i in range(3):
        model.add_adapter(f"{module}adapter_{i}", make_cfg())
        sizes.append(model.num_weights)
        assert module_of(model, f"adapter_{i}") == module.removesuffix(":")
    added = [after - before for before, after in pairwise(sizes)]
    assert added[0] > 0 and len(set(added)) == 1
    holder, other = (model.decoder, model.encoder) if module == "decoder:" else (model.encoder, model.decoder)
    assert holder.is_adapter_available() and not other.is_adapter_available()
    assert holder.get_enabled_adapters() == ["adapter_0", "adapter_1", "adapter_2"]


@pytest.mark.parametrize("module", ["joint", "preprocessor", "encoder+joint"])
def test_adapter_for_a_module_without_support_is_refused(
    model: EncDecCTCModel, batch: dict[str, Tensor], module: str
) -> None:
    base, size = logprobs(model, batch), model.num_weights
    with pytest.raises(ValueError, match=module.split("+")[-1]):
        model.add_adapter(f"{module}:adapter_0", linear())
    assert model.num_weights == size and "adapters" not in model.cfg
    assert torch.equal(logprobs(model, batch), base)


@in_each_module
@pytest.mark.parametrize("cfg", [linear(), linear(norm_position="post"), mlp(), mlp(norm_position="post")])
def test_new_adapter_changes_nothing(
    model: EncDecCTCModel, batch: dict[str, Tensor], module: str, cfg: DictConfig
) -> None:
    base = logprobs(model, batch)
    model.add_adapter(f"{module}adapter_0", cfg)
    assert torch.equal(logprobs(model, batch), base)


@pytest.mark.parametrize(("first", "second"), [*product(MODULES, MODULES)])
def test_two_adapters_and_one_of_them_disabled(
    model: EncDecCTCModel, batch: dict[str, Tensor], first: str, second: str
) -> None:
    base = logprobs(model, batch)
    model.add_adapter(f"{first}adapter_0", linear())
    model.add_adapter(f"{second}adapter_1", mlp())
    assert model.get_enabled_adapters() == ["adapter_0", "adapter_1"]
    assert torch.equal(logprobs(model, batch), base)
    model.set_enabled_adapters(name=f"{first}adapter_0", enabled=False)
    assert model.get_enabled_adapters() == ["adapter_1"]
    assert torch.equal(logprobs(model, batch), base)
    with pytest.raises(ValueError, match="global_cfg"):
        model.set_enabled_adapters(name="global_cfg")


def test_attention_adapters_are_refused(model: EncDecCTCModel) -> None:
    cfg = OmegaConf.structured(MultiHeadAttentionAdapterConfig(n_head=1, n_feat=8))
    for module in MODULES:
        with pytest.raises(ValueError, match="accepted adapter types"):
            model.add_adapter(f"{module}adapter_0", cfg)


@in_each_module
def test_unfreezing_enabled_adapters_leaves_the_rest_frozen(
    model: EncDecCTCModel, batch: dict[str, Tensor], module: str
) -> None:
    model.add_adapter(f"{module}adapter_0", linear())
    model.freeze()
    model.unfreeze_enabled_adapters()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {name for name, _ in model.named_parameters() if ".adapter_0." in name} != set()
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}
    model.train()(**batch)
    assert len(statistics) == 8  # NeMo's case asks the batch norms' flag, this one what it is for
    assert all(torch.equal(buffer, statistics.get(name, buffer)) for name, buffer in model.named_buffers())
    assert model.num_weights < sum(p.numel() for p in model.parameters()) / 2


@in_each_module
def test_save_and_restore_keep_the_module_of_an_adapter(
    model: EncDecCTCModel, batch: dict[str, Tensor], disturb: Callable, module: str, tmp_path: Path
) -> None:
    model.add_adapter(f"{module}adapter_0", linear())
    disturb(model, "adapter_0")
    model.save_to(str(tmp_path / "model.nemo"))
    restored = EncDecCTCModel.restore_from(str(tmp_path / "model.nemo"), map_location="cpu").eval()
    assert restored.num_weights == model.num_weights and restored.get_enabled_adapters() == ["adapter_0"]
    assert module_of(restored, "adapter_0") == module.removesuffix(":")
    assert restored.decoder.is_adapter_available() == (module == "decoder:")
    assert torch.equal(logprobs(restored, batch), logprobs(model, batch))


def test_base_without_support_has_no_adapters(make_model: ModelMaker) -> None:
    model = make_model(adapters=False)
    with pytest.raises(AttributeError, match="add_adapter"):
        model.add_adapter("adapter_0", linear())
    assert not model.is_adapter_available()


def test_support_is_swapped_in_through_the_restored_config(
    make_model: ModelMaker, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    base, path = make_model(adapters=False), str(tmp_path / "base.nemo")
    base.save_to(path)
    config = EncDecCTCModel.restore_from(path, return_config=True)
    config.encoder._target_ = get_registered_adapter(config.encoder._target_).adapter_class_path
    model = EncDecCTCModel.restore_from(path, override_config_path=config, map_location="cpu").eval()
    assert isinstance(model.encoder, AdapterModuleMixin)
    assert torch.equal(logprobs(model, batch), logprobs(base, batch))
    model.add_adapter("adapter_0", linear())
    model.freeze()
    model.unfreeze_enabled_adapters()
    assert model.is_adapter_available() and 0 < model.num_weights < base.num_weights


def test_registry_refuses_a_second_entry_and_a_stranger() -> None:
    with pytest.raises(ValueError, match="already been added"):
        register_adapter(DeepSpeech2Encoder, DeepSpeech2EncoderAdapter)
    with pytest.raises(ValueError, match="not a sub-class"):
        register_adapter(nn.Linear, DeepSpeech2EncoderAdapter)


@in_each_module
@pytest.mark.parametrize("make_cfg", [linear, mlp])
def test_auxiliary_loss_of_a_new_adapter_is_zero(
    model: EncDecCTCModel, batch: dict[str, Tensor], disturb: Callable, module: str, make_cfg: Callable
) -> None:
    cfg = make_cfg()
    cfg.adapter_strategy.l2_lambda = 0.01
    model.add_adapter(f"{module}adapter_0", cfg)
    model.train()
    parts = 1 if module == "decoder:" else 2  # one after each recurrent layer
    losses = []
    for _ in range(2):
        AccessMixin.reset_registry(model)
        model(**batch)
        registry = AccessMixin.get_module_registry(model).values()
        assert len(registry) == parts
        losses.append([loss for registered in registry for loss in registered["adapter_loss"]])
        disturb(model, "adapter_0")
    AccessMixin.reset_registry(model)
    AccessMixin.set_access_enabled(access_enabled=False)
    assert losses[0] == [0.0] * parts and len(losses[1]) == parts and min(losses[1]) > 0.0
