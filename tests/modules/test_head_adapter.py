"""The adapter that makes a person's own logits, beside the decoder's output layer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.core.classes.common import typecheck
from omegaconf import OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules import (
    DeepSpeech2Decoder,
    DeepSpeech2DecoderConfig,
    MLPAdapterConfig,
    MLPHeadAdapter,
    MLPHeadAdapterConfig,
)

WIDTH, LETTERS = 6, ["a", "b", "c"]
HEAD = "nemo_ds2_adapters.modules.MLPHeadAdapter"
ModelMaker = Callable[..., EncDecCTCModel]
Disturb = Callable[[nn.Module, str], None]


def decoder(**options: Any) -> DeepSpeech2Decoder:
    config = DeepSpeech2DecoderConfig(feat_in=WIDTH, vocabulary=LETTERS, **options)
    return DeepSpeech2Decoder.from_config_dict(OmegaConf.structured(config)).eval()


def encoded() -> Tensor:
    return torch.randn(2, WIDTH, 5, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("sizes", [[5], [5, 4], [5, 4, 3]])
def test_layers(sizes: list[int]) -> None:
    head = MLPHeadAdapter(WIDTH, 4, sizes, dropout=0.5, mode="replace")
    last = 3 * len(sizes)
    assert list(head.state_dict()) == [f"module.{i}.{k}" for i in range(0, last + 1, 3) for k in ("weight", "bias")]
    assert [type(layer).__name__ for layer in head.module] == ["Linear", "ReLU", "Dropout"] * len(sizes) + ["Linear"]
    assert head(torch.randn(2, 7, WIDTH)).shape == (2, 7, 4)
    assert f"in_features={WIDTH}, out_features={sizes[0]}" in repr(head) and "mode='replace'" in repr(head)


def test_every_frame_by_itself() -> None:
    head = MLPHeadAdapter(WIDTH, 4, mode="replace").eval()
    frames = encoded().transpose(1, 2)
    torch.testing.assert_close(head(frames)[1, 3], head(frames[1, 3]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_dims": []}, "1 to 3 sizes"),
        ({"hidden_dims": [1, 1, 1, 1]}, "1 to 3 sizes"),
        ({"hidden_dims": [5, 0]}, "at least 1"),
        ({"hidden_dims": [5.0]}, "at least 1"),
        ({"hidden_dims": "512"}, "hidden_dims='512': expected a list of 1 to 3 sizes"),
        ({"hidden_dims": 64}, "hidden_dims=64: expected a list"),
        ({"mode": "average"}, "mode='average': expected one of add, replace"),
        ({"activation": "step"}, "activation='step'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLPHeadAdapter(WIDTH, 4, **options)


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
@pytest.mark.parametrize("mode", ["add", "replace"])
def test_logits(mode: str, norm: str | None, disturb: Disturb) -> None:
    """They are made of the frames before the norm, behind the decoder's feature adapters; temperature divides all."""
    one = decoder(norm=norm)
    one.temperature = 2.0
    x, frames = encoded(), encoded().transpose(1, 2)
    one.add_adapter("feature", MLPAdapterConfig(hidden_dims=[5]))
    disturb(one, "feature")
    base = one(encoder_output=x)
    one.add_adapter("own", MLPHeadAdapterConfig(hidden_dims=[5], mode=mode))
    if mode == "add":
        assert torch.equal(one(encoder_output=x), base)
    disturb(one, "own")
    frames = frames + one.adapter_layer["feature"](frames)
    logits = one.output(one.norm(frames) if norm == "layer" else frames)
    if norm == "batch":
        logits = one.output(one.norm(frames, torch.ones(2, 5, 1, dtype=torch.bool)))
    own = one.adapter_layer["own"](frames) + (logits if mode == "add" else 0.0)
    torch.testing.assert_close(one(encoder_output=x), (own / 2).log_softmax(-1))
    assert torch.equal(torch.stack(one.forward_both(x)), torch.stack([base, one(encoder_output=x)]))


def test_one_at_a_time() -> None:
    one = decoder()
    with pytest.raises(InputError, match="no personal output: enable a head adapter"):
        one.forward_both(encoded())
    one.add_adapter("john", MLPHeadAdapterConfig())
    one.add_adapter("feature", MLPAdapterConfig(hidden_dims=[5]))
    one.add_adapter("jane", MLPHeadAdapterConfig())
    for run in (lambda x: one(encoder_output=x), one.forward_both):
        with pytest.raises(InputError, match="head adapters john, jane are enabled, but only one can run"):
            run(encoded())
    one.set_enabled_adapters("john", enabled=False)
    assert one.enabled_head() is one.adapter_layer["jane"]


@pytest.mark.parametrize("cfg", [MLPHeadAdapterConfig(hidden_dims=[5]), {"_target_": HEAD, "hidden_dims": [5]}])
def test_model_with_a_head_is_saved_and_restored(
    model: EncDecCTCModel, batch: dict[str, Tensor], disturb: Disturb, cfg: Any, tmp_path: Path
) -> None:
    with torch.no_grad():
        base = model(**batch)[0]
        model.add_adapter("feature", MLPAdapterConfig(hidden_dims=[5]))
        model.add_adapter("decoder:own", cfg)
        assert torch.equal(model(**batch)[0], base)
        assert model.get_enabled_adapters() == ["feature", "own"]
        disturb(model, "feature")
        disturb(model, "own")
        model.save_to(str(tmp_path / "model.nemo"))
        restored = EncDecCTCModel.restore_from(str(tmp_path / "model.nemo"), map_location="cpu").eval()
        assert torch.equal(restored(**batch)[0], model(**batch)[0])
        assert (restored.cfg.adapters.own.in_features, restored.cfg.adapters.own.num_classes_with_blank) == (8, 29)
        restored.set_enabled_adapters(enabled=False)
        assert torch.equal(restored(**batch)[0], base)


@pytest.mark.parametrize("mode", ["add", "replace"])
def test_training_moves_the_head_only(model: EncDecCTCModel, batch: dict[str, Tensor], mode: str) -> None:
    with torch.no_grad():
        base = model(**batch)[0]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.add_adapter("decoder:own", MLPHeadAdapterConfig(hidden_dims=[5], activation="tanh", mode=mode))
    model.freeze()
    model.unfreeze_enabled_adapters()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    targets, target_lengths = torch.tensor([[1], [2], [3]]), torch.ones(3, dtype=torch.long)
    for _ in range(2):
        log_probs, lengths, _ = model(**batch)
        loss = model.loss(log_probs=log_probs, targets=targets, input_lengths=lengths, target_lengths=target_lengths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(parameter.grad.any() for parameter in model.decoder.adapter_layer["own"].parameters())
    model.set_enabled_adapters(enabled=False)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(**batch)[0], base)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes_with_blank": 5}, "num_classes_with_blank=5 does not fit this decoder, which has 4"),
        ({"in_features": 7}, "in_features=7 does not fit this decoder, which has 6"),
        ({"layers": "last"}, "layers"),
    ],
)
def test_what_does_not_fit(options: dict[str, Any], message: str) -> None:
    one = decoder()
    with pytest.raises(Exception, match=message):
        one.add_adapter("own", {"_target_": HEAD, **options})


@pytest.mark.parametrize("name", ["own", "encoder:own", "encoder+decoder:own", "decoder+encoder:own"])
def test_a_head_belongs_into_the_decoder_alone(model: EncDecCTCModel, name: str) -> None:
    modules = [path for path, _ in model.named_modules()]
    with pytest.raises(ValueError, match="add it as decoder:<name>"):
        model.add_adapter(name, MLPHeadAdapterConfig())
    assert [path for path, _ in model.named_modules()] == modules


def test_change_of_vocabulary_is_refused(model: EncDecCTCModel, batch: dict[str, Tensor]) -> None:
    model.add_adapter("decoder:own", MLPHeadAdapterConfig(hidden_dims=[5]))
    config, before = OmegaConf.to_yaml(model.cfg), model(**batch)[0]
    with pytest.raises(InputError, match="adapters that depend on its vocabulary, own: delete them first"):
        model.change_vocabulary(["x", "y"])
    assert OmegaConf.to_yaml(model.cfg) == config
    assert torch.equal(model(**batch)[0], before)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("mode", ["add", "replace"])
def test_traced_head_computes_the_same(disturb: Disturb, mode: str) -> None:
    one = decoder(norm="batch")
    one.add_adapter("own", MLPHeadAdapterConfig(hidden_dims=[5], mode=mode))
    disturb(one, "own")
    one.freeze()
    with torch.no_grad(), typecheck.disable_checks():
        traced = torch.jit.trace(one, one.input_example(2, 5))
        longer = torch.randn(3, WIDTH, 11)
        torch.testing.assert_close(traced(longer), one(longer))
