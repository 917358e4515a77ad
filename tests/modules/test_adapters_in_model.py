"""Adapters of the encoder, through the calls of NeMo's model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.collections.common.parts.adapter_modules import LinearAdapter, LinearAdapterConfig
from omegaconf import MISSING, OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters.modules import DeepSpeech2EncoderAdapter, MLPAdapter, MLPAdapterConfig

LINEAR_PATH = "nemo.collections.common.parts.adapter_modules.LinearAdapter"
LINEAR = {"_target_": LINEAR_PATH, "dim": 6}
MLP = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [5, 4]}
PLACEMENTS: list[Any] = ["first", "last", "all", [0], [1, 2], [2, 0]]
POINTS = {"first": [0], "last": [3], "all": [1, 2, 3], "[0]": [1], "[1, 2]": [2, 3], "[2, 0]": [1, 3]}
Disturb = Callable[[nn.Module, str], None]


@pytest.fixture
def model(make_model: Callable[..., EncDecCTCModel]) -> EncDecCTCModel:
    """Three recurrent layers and a look-ahead; points 0 to 3 are 8, 5, 5 and 5 wide."""
    return make_model(encoder={"n_layers": 3, "d_model": 5, "bidirectional": False, "lookahead_context": 3})


def logprobs(model: EncDecCTCModel, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch)[0]


def points_of(model: EncDecCTCModel, name: str) -> list[int]:
    blocks = model.encoder.adapter_points.items()
    return sorted(int(point) for point, block in blocks if block.get_adapter_module(name) is not None)


@pytest.mark.parametrize("name", ["user", "encoder:user"])
def test_default_config_is_all_it_takes(model: EncDecCTCModel, batch: dict[str, Tensor], name: str) -> None:
    base = logprobs(model, batch)
    model.add_adapter(name, MLPAdapterConfig())
    assert points_of(model, "user") == [1, 2, 3]  # after every recurrent layer
    for point in model.encoder.adapter_points.values():
        adapter = point.adapter_layer["user"]
        assert isinstance(adapter, MLPAdapter) and adapter.module[0].normalized_shape == (5,)
    assert model.get_enabled_adapters() == model.encoder.get_enabled_adapters() == ["user"]
    assert torch.equal(logprobs(model, batch), base)


@pytest.mark.parametrize(
    "cfg",
    [
        pytest.param(LinearAdapterConfig(in_features=77, dim=6), id="wrong size"),
        pytest.param(LinearAdapterConfig(in_features=MISSING, dim=6), id="missing size"),
        pytest.param(LINEAR, id="dict"),
        pytest.param({**LINEAR, "in_features": 77}, id="dict with size"),
        pytest.param({**LINEAR, "in_features": None}, id="dict with null"),
        pytest.param(OmegaConf.create({**LINEAR, "norm_position": "post", "dropout": 0.1}), id="DictConfig"),
        pytest.param(OmegaConf.create({"cfg": {**LINEAR, "dim": "${size}"}, "size": 6}).cfg, id="interpolation"),
    ],
)
def test_linear_adapter_of_nemo_needs_no_size(model: EncDecCTCModel, batch: dict[str, Tensor], cfg: Any) -> None:
    base = logprobs(model, batch)
    model.add_adapter("user", cfg)
    assert points_of(model, "user") == [1, 2, 3]
    for point in model.encoder.adapter_points.values():
        adapter = point.adapter_layer["user"]
        assert isinstance(adapter, LinearAdapter)
        assert {p.shape for p in adapter.parameters() if p.dim() == 2} == {(6, 5), (5, 6)}
    assert model.cfg.adapters.user.in_features == 5
    assert torch.equal(logprobs(model, batch), base)


@pytest.mark.parametrize("cfg", [MLP, LINEAR], ids=["mlp", "linear"])
@pytest.mark.parametrize("layers", PLACEMENTS, ids=str)
def test_placement_survives_save_and_restore(
    model: EncDecCTCModel, batch: dict[str, Tensor], disturb: Disturb, cfg: dict, layers: Any, tmp_path: Path
) -> None:
    base = logprobs(model, batch)
    model.add_adapter("user", OmegaConf.create({**cfg, "layers": layers}))
    assert points_of(model, "user") == POINTS[str(layers)]
    assert torch.equal(logprobs(model, batch), base)
    disturb(model, "user")
    adapted = logprobs(model, batch)
    assert not torch.allclose(adapted, base)
    for _ in range(2):  # what was restored is saved again
        model.save_to(str(tmp_path / "model.nemo"))
        model = EncDecCTCModel.restore_from(str(tmp_path / "model.nemo"), map_location="cpu").eval()
        assert model.cfg.adapters.user.layers == layers
        assert points_of(model, "user") == POINTS[str(layers)]
        assert torch.equal(logprobs(model, batch), adapted)
    model.set_enabled_adapters("user", enabled=False)
    assert torch.equal(logprobs(model, batch), base)


def test_adapter_sits_where_its_placement_says(model: EncDecCTCModel, disturb: Disturb) -> None:
    features, lengths = torch.randn(2, 16, 30), torch.tensor([30, 11])
    names = {"first": 0, "last": 3, "middle": 2}
    for name in names:
        model.add_adapter(name, {**MLP, "layers": [1] if name == "middle" else name})
        disturb(model, name)
    encoder = model.encoder
    model.set_enabled_adapters(enabled=False)
    activations = [encoder.forward_prefix(features, lengths, point) for point in range(4)]
    for name, point in names.items():
        x, frames = activations[point]
        adapted = x + encoder.adapter_points[str(point)].adapter_layer[name](x)
        adapted[1, frames[1] :] = 0.0
        expected = encoder.forward_from(adapted, frames, point)
        model.set_enabled_adapters(name)
        assert torch.equal(encoder.forward_prefix(features, lengths, point)[0], x)
        output, _ = encoder(audio_signal=features, length=lengths)
        torch.testing.assert_close(output.transpose(1, 2), expected)
        assert not output[1, :, frames[1] :].any()
        for resumed in range(point + 1):
            x, frames = activations[resumed]
            assert torch.equal(encoder.forward_from(x, frames, resumed).transpose(1, 2), output)
        model.set_enabled_adapters(name, enabled=False)
        assert torch.equal(encoder.forward_from(*activations[3], 3), activations[3][0])


@pytest.mark.parametrize("layers", PLACEMENTS[:3])
def test_adapted_output_depends_on_the_utterance_alone(model: EncDecCTCModel, disturb: Disturb, layers: str) -> None:
    model.add_adapter("user", MLPAdapterConfig(hidden_dims=[5], layers=layers))
    disturb(model, "user")
    utterances = [torch.randn(16, length) for length in (1, 26, 9)]
    batch = torch.full((3, 16, 40), float("nan"))
    for row, x in zip(batch, utterances):
        row[:, : x.shape[1]] = x
    with torch.no_grad():
        output, lengths = model.encoder(audio_signal=batch, length=torch.tensor([1, 26, 9]))
        for row, x, length in zip(output, utterances, lengths):
            single, _ = model.encoder(audio_signal=x[None], length=torch.tensor([x.shape[1]]))
            torch.testing.assert_close(row[:, :length], single[0], rtol=0, atol=1e-5)
            assert not row[:, length:].any()


def test_adapters_are_enabled_one_by_one_and_all_together(
    model: EncDecCTCModel, batch: dict[str, Tensor], disturb: Disturb
) -> None:
    outputs = {(): logprobs(model, batch)}
    for name, layers in (("a", "first"), ("ab", "all"), ("c", "first")):
        model.add_adapter(name, MLPAdapterConfig(hidden_dims=[4], layers=layers))
        disturb(model, name)
        model.set_enabled_adapters(enabled=False)
        assert model.get_enabled_adapters() == []
        model.set_enabled_adapters(name=name)
        assert model.get_enabled_adapters() == [name]
        outputs[name] = logprobs(model, batch)
    for name in ("c", "a", "ab", "a"):
        model.set_enabled_adapters(enabled=False)
        assert torch.equal(logprobs(model, batch), outputs[()])
        model.set_enabled_adapters(name=f"encoder:{name}", enabled=True)
        assert torch.equal(logprobs(model, batch), outputs[name])
    model.set_enabled_adapters(enabled=True)
    assert model.get_enabled_adapters() == ["a", "ab", "c"]
    together = logprobs(model, batch)
    assert not any(torch.allclose(together, output) for output in outputs.values())
    with pytest.raises(KeyError):
        model.set_enabled_adapters(name="nobody")
    for name in ("ab", "c"):
        model.cfg.adapters[name].enabled = False  # behind the encoder's back
    assert torch.equal(logprobs(model, batch), outputs["a"])


def test_only_the_enabled_adapter_is_unfrozen(model: EncDecCTCModel) -> None:
    for name, layers in (("old", "all"), ("new", "all")):
        model.add_adapter(name, MLPAdapterConfig(layers=layers))
    model.set_enabled_adapters(enabled=False)
    model.set_enabled_adapters(name="new")
    model.freeze()
    assert not any(p.requires_grad for p in model.parameters())
    model.unfreeze_enabled_adapters()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {name for name, _ in model.named_parameters() if ".new." in name}
    assert {name.split(".")[2] for name in trainable} == {"1", "2", "3"}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("middle", "layers='middle'.*first, last, all"),
        ([], r"layers=\[\].*at least one"),
        ([3], r"layers=\[3\].*0 to 2"),
        ([-1], r"layers=\[-1\].*0 to 2"),
        ([1, 1], r"layers=\[1, 1\].*each once"),
        (1, "layers=1.*list of layer indices"),
    ],
)
def test_bad_placement_is_an_error(model: EncDecCTCModel, layers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.add_adapter("user", MLPAdapterConfig(layers=layers))
    assert not model.is_adapter_available()


@pytest.mark.parametrize("layers", ["first", "last"])
def test_name_is_given_once_wherever_it_sits(model: EncDecCTCModel, layers: str) -> None:
    model.add_adapter("user", MLPAdapterConfig(layers="first"))
    with pytest.raises(ValueError, match="'user' exists"):
        model.add_adapter("user", MLPAdapterConfig(layers=layers))
    assert points_of(model, "user") == [0]


def test_unknown_adapter_type_is_an_error(model: EncDecCTCModel) -> None:
    with pytest.raises(ValueError, match="accepted adapter types"):
        model.encoder.add_adapter("user", {"_target_": "torch.nn.Linear"})
    assert not model.encoder.is_adapter_available()


@pytest.mark.parametrize("training", [True, False])
def test_new_adapter_has_precision_and_mode_of_the_encoder(training: bool) -> None:
    encoder = DeepSpeech2EncoderAdapter(16, n_layers=1, d_model=4, conv_channels=[2, 2]).double().train(training)
    encoder.add_adapter("user", MLPAdapterConfig(dropout=0.5))
    assert {p.dtype for p in encoder.parameters()} == {torch.float64}
    (block,) = encoder.adapter_points.values()
    assert {module.training for module in (block, *block.adapter_layer["user"].modules())} == {training}
    output, _ = encoder(audio_signal=torch.randn(1, 16, 9).double(), length=torch.tensor([9]))
    assert output.dtype == torch.float64 and encoder.get_enabled_adapters() == ["user"]


@pytest.mark.gpu
def test_new_adapter_is_on_the_device_of_the_model(model: EncDecCTCModel, batch: dict[str, Tensor]) -> None:
    model.cuda()
    batch = {key: value.cuda() for key, value in batch.items()}
    base = logprobs(model, batch)
    model.add_adapter("user", MLPAdapterConfig(layers="all"))
    assert torch.equal(logprobs(model, batch), base)
