"""NeMo's cases for adapter files (its own `save_adapters` and `load_adapters`) and for merge strategies."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig
from nemo.core.classes.mixins.adapter_mixin_strategies import (
    AbstractAdapterStrategy,
    ResidualAddAdapterStrategy,
    ReturnResultAdapterStrategy,
)
from omegaconf import OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters.modules import MLPAdapterConfig

ModelMaker = Callable[..., EncDecCTCModel]
Disturb = Callable[[nn.Module, str], None]
LINEAR = LinearAdapterConfig(in_features=8, dim=4)
MLP = MLPAdapterConfig(hidden_dims=[4], layers="all")


@pytest.fixture
def trusted_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """NeMo's files hold a pickled config; its docstring asks for this before loading one."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


@pytest.fixture
def trained(model: EncDecCTCModel, disturb: Disturb) -> EncDecCTCModel:
    """An adapter with a module prefix in the decoder, and one without in the encoder."""
    model.add_adapter("decoder:head", LINEAR)
    model.add_adapter("user", MLP)
    disturb(model, "head")
    disturb(model, "user")
    return model


def logprobs(model: EncDecCTCModel, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch)[0]


@pytest.mark.usefixtures("trusted_files")
@pytest.mark.parametrize(
    ("name", "holder", "other"), [("decoder:head", "decoder", "encoder"), ("user", "encoder", "decoder")]
)
@pytest.mark.parametrize("saved", ["one", "all"])
def test_one_adapter_moves_to_a_fresh_base(
    trained: EncDecCTCModel,
    make_model: ModelMaker,
    batch: dict[str, Tensor],
    tmp_path: Path,
    name: str,
    holder: str,
    other: str,
    saved: str,
) -> None:
    path = tmp_path / "adapter.pt"
    trained.save_adapters(str(path), name=name if saved == "one" else None)
    trained.save_to(str(tmp_path / "model.nemo"))
    assert path.stat().st_size < (tmp_path / "model.nemo").stat().st_size
    fresh = make_model()
    fresh.load_adapters(str(path), name=name, map_location="cpu")
    short = name.split(":")[-1]
    assert fresh.get_enabled_adapters() == getattr(fresh, holder).get_enabled_adapters() == [short]
    assert not getattr(fresh, other).is_adapter_available()
    trained.set_enabled_adapters(enabled=False)
    trained.set_enabled_adapters(short)
    assert torch.equal(logprobs(fresh.eval(), batch), logprobs(trained, batch))


@pytest.mark.usefixtures("trusted_files")
def test_all_adapters_move_to_a_fresh_base(
    trained: EncDecCTCModel, make_model: ModelMaker, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    trained.save_adapters(str(tmp_path / "adapters.pt"))
    fresh = make_model()
    fresh.load_adapters(str(tmp_path / "adapters.pt"), map_location="cpu")
    assert fresh.get_enabled_adapters() == ["head", "user"] and fresh.cfg.adapters.user.layers == "all"
    assert torch.equal(logprobs(fresh.eval(), batch), logprobs(trained, batch))


@pytest.mark.usefixtures("trusted_files")
@pytest.mark.parametrize("loaded", ["head", "decoder:head"])
def test_name_with_and_without_its_module_means_the_same(
    trained: EncDecCTCModel, make_model: ModelMaker, tmp_path: Path, loaded: str
) -> None:
    trained.save_adapters(str(tmp_path / "adapter.pt"), name="head")
    fresh = make_model()
    fresh.load_adapters(str(tmp_path / "adapter.pt"), name=loaded, map_location="cpu")
    assert fresh.decoder.get_enabled_adapters() == ["head"] and not fresh.encoder.is_adapter_available()


def test_base_without_adapters_has_nothing_to_save(model: EncDecCTCModel, tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="No adapters"):
        model.save_adapters(str(tmp_path / "adapters.pt"))


@pytest.fixture(params=["first", "decoder"])
def point(request: pytest.FixtureRequest, model: EncDecCTCModel) -> nn.Module:
    """A module with one new adapter `user`: a point of the encoder, or the decoder."""
    if request.param == "decoder":
        model.add_adapter("decoder:user", LINEAR)
        return model.decoder
    model.add_adapter("user", MLPAdapterConfig(hidden_dims=[4], layers=request.param))
    return model.encoder.adapter_points["0"]


def test_default_strategy_adds(point: nn.Module, disturb: Disturb) -> None:
    adapter, x = point.adapter_layer["user"], torch.randn(2, 5, 8)
    assert type(adapter.adapter_strategy) is ResidualAddAdapterStrategy
    assert torch.equal(point.forward_enabled_adapters(x), x)
    disturb(point, "user")
    torch.testing.assert_close(point.forward_enabled_adapters(x), x + adapter(x))


@pytest.mark.parametrize("depth", [0.0, 1.0])
def test_stochastic_depth_leaves_the_adapter_out_in_training(point: nn.Module, disturb: Disturb, depth: float) -> None:
    disturb(point, "user")
    x = torch.randn(2, 5, 8)
    adapted = point.forward_enabled_adapters(x)
    assert not torch.allclose(adapted, x)
    point.adapter_layer["user"].adapter_strategy = ResidualAddAdapterStrategy(stochastic_depth=depth)
    torch.testing.assert_close(point.eval().forward_enabled_adapters(x), adapted)
    torch.testing.assert_close(point.train().forward_enabled_adapters(x), x if depth else adapted)


def test_replaced_strategy_is_used(point: nn.Module, disturb: Disturb) -> None:
    class Multiply(AbstractAdapterStrategy):
        def forward(self, input: Tensor, adapter: nn.Module, *, module: nn.Module) -> Tensor:
            return input * adapter(input)

    x, adapter = torch.randn(2, 5, 8), point.adapter_layer["user"]
    adapter.adapter_strategy = Multiply()
    assert not point.forward_enabled_adapters(x).any()  # a new adapter gives zero
    disturb(point, "user")
    adapter.adapter_strategy = ReturnResultAdapterStrategy()
    assert torch.equal(point.forward_enabled_adapters(x), adapter(x))


def test_adapter_without_strategy_is_an_error(
    model: EncDecCTCModel, point: nn.Module, batch: dict[str, Tensor]
) -> None:
    del point.adapter_layer["user"].adapter_strategy
    with pytest.raises(AttributeError):
        model(**batch)


def test_strategy_of_the_config_is_saved_and_restored(model: EncDecCTCModel, tmp_path: Path) -> None:
    strategy = {
        "_target_": "nemo.core.classes.mixins.adapter_mixin_strategies.ResidualAddAdapterStrategy",
        "stochastic_depth": 0.25,
    }
    cfg = OmegaConf.create({"_target_": MLP._target_, "hidden_dims": [4], "adapter_strategy": strategy})
    model.add_adapter("user", cfg)
    model.save_to(str(tmp_path / "model.nemo"))
    restored = EncDecCTCModel.restore_from(str(tmp_path / "model.nemo"), map_location="cpu")
    for one in (model, restored):
        points = one.encoder.adapter_points.values()
        assert [p.adapter_layer["user"].adapter_strategy.stochastic_depth for p in points] == [0.25, 0.25]
