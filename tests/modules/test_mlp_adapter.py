"""The MLP that an adapter is made of."""

from itertools import pairwise

import pytest
import torch
from nemo.collections.common.parts.adapter_modules import AdapterModuleUtil
from nemo.core.classes.mixins.adapter_mixin_strategies import ResidualAddAdapterStrategy, ReturnResultAdapterStrategy
from omegaconf import OmegaConf
from torch import nn

from nemo_ds2_adapters.layers import ACTIVATIONS
from nemo_ds2_adapters.modules import MLPAdapter, MLPAdapterConfig

WIDTH = 6


@pytest.mark.parametrize("hidden_dims", [[3], [5, 4], [7, 5, 3]])
@pytest.mark.parametrize("norm_position", ["pre", "post", "none"])
def test_layers_are_those_of_the_options(hidden_dims: list[int], norm_position: str) -> None:
    adapter = MLPAdapter(WIDTH, hidden_dims, norm_position=norm_position, dropout=0.25)
    layers = list(adapter.module)
    if norm_position != "none":
        norm = layers.pop(0 if norm_position == "pre" else -1)
        assert isinstance(norm, nn.LayerNorm) and norm.normalized_shape == (WIDTH,)
    sizes = [WIDTH, *hidden_dims, WIDTH]
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linears] == list(pairwise(sizes))
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Dropout] * len(hidden_dims) + [nn.Linear]
    assert {layer.p for layer in layers if isinstance(layer, nn.Dropout)} == {0.25}


@pytest.mark.parametrize("norm_position", ["pre", "post", "none"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_new_adapter_is_zero_and_learns(norm_position: str, activation: str) -> None:
    adapter = MLPAdapter(WIDTH, [5, 4], activation=activation, norm_position=norm_position)
    x = torch.randn(3, 7, WIDTH)
    assert not adapter(x).any()
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        (adapter(x) - 0.1 * x).square().mean().backward()
        optimizer.step()
    assert adapter(x).any() and adapter(x).shape == x.shape
    assert all(parameter.grad.any() for parameter in adapter.parameters())


def test_dropout_follows_the_mode() -> None:
    adapter = MLPAdapter(WIDTH, [8], dropout=0.5)
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, WIDTH)
    assert not torch.equal(adapter(x), adapter(x))
    assert torch.equal(adapter.eval()(x), adapter(x))


def test_strategy_adds_unless_told_otherwise() -> None:
    assert isinstance(MLPAdapter(WIDTH), AdapterModuleUtil)
    assert type(MLPAdapter(WIDTH).adapter_strategy) is ResidualAddAdapterStrategy
    given = MLPAdapter(WIDTH, adapter_strategy=ReturnResultAdapterStrategy())
    assert type(given.adapter_strategy) is ReturnResultAdapterStrategy


def test_defaults_of_config_and_class_agree() -> None:
    config = OmegaConf.to_container(OmegaConf.structured(MLPAdapterConfig(in_features=WIDTH)))
    assert config.pop("_target_") == "nemo_ds2_adapters.modules.MLPAdapter" and config.pop("layers") == "all"
    assert str(MLPAdapter(**config)) == str(MLPAdapter(WIDTH))


def test_printing_shows_the_layers() -> None:
    text = str(MLPAdapter(WIDTH, [5, 4]))
    assert "Linear(in_features=6, out_features=5" in text and "Linear(in_features=4, out_features=6" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_dims": []}, r"hidden_dims=\[\].*1 to 3"),
        ({"hidden_dims": [2, 2, 2, 2]}, r"hidden_dims=\[2, 2, 2, 2\].*1 to 3"),
        ({"hidden_dims": [4, 0]}, r"hidden_dims=\[4, 0\].*at least 1"),
        ({"norm_position": "before"}, "norm_position='before'.*pre, post, none"),
        ({"activation": "softplus"}, "activation='softplus'.*relu"),
    ],
)
def test_bad_option_is_an_error(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLPAdapter(WIDTH, **options)
