"""The base before, during and after an adapter's training: the same to the bit."""

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import OmegaConf
from torch import Tensor

from nemo_ds2_adapters.layers import MaskedBatchNorm
from nemo_ds2_adapters.modules import MLPAdapterConfig

ModelMaker = Callable[..., EncDecCTCModel]
NAMES = ("user", "decoder:user", "encoder+decoder:user")


def outputs(model: EncDecCTCModel, batch: dict[str, Tensor]) -> list[Tensor]:
    """Log probabilities in eval mode: with gradients, without, and in inference mode."""
    model.eval()
    with torch.no_grad():
        no_grad = model(**batch)[0]
    with torch.inference_mode():
        inference = model(**batch)[0]
    return [model(**batch)[0].detach(), no_grad, inference]


def base_state(model: EncDecCTCModel) -> dict[str, Tensor]:
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value.detach().clone() for name, value in state.items() if "adapter_layer" not in name}


def adapter_state(model: EncDecCTCModel, name: str = "user") -> list[Tensor]:
    return [p.detach().clone() for path, p in model.named_parameters() if f"adapter_layer.{name}." in path]


def assert_equal_to_the_bit(got: list[Tensor], expected: list[Tensor]) -> None:
    assert [torch.equal(a, b) for a, b in zip(got, expected)] == [True] * len(expected)


def data(manifest: Path) -> dict:
    return {"manifest_filepath": str(manifest), "sample_rate": 16000, "batch_size": 2, "shuffle": False}


def prepare(model: EncDecCTCModel, name: str = "user", layers: str = "first") -> None:
    """NeMo's order: add, enable it alone, freeze all, unfreeze it."""
    model.add_adapter(name, MLPAdapterConfig(hidden_dims=[6], dropout=0.2, layers=layers))
    model.set_enabled_adapters(enabled=False)
    model.set_enabled_adapters(name, enabled=True)
    model.freeze()
    model.unfreeze_enabled_adapters()


def take_steps(model: EncDecCTCModel, batch: dict[str, Tensor], steps: int = 2) -> None:
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.05)
    for _ in range(steps):
        logprobs, lengths, _ = model(**{key: value.clone() for key, value in batch.items()})
        targets = torch.tensor([[1, 2]] * 3)
        loss = model.loss(
            log_probs=logprobs, targets=targets, input_lengths=lengths, target_lengths=torch.tensor([2, 2, 2])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def fit(model: EncDecCTCModel, manifest: Path, folder: Path) -> pl.Trainer:
    """Two steps of Lightning with a validation in between."""
    trainer = pl.Trainer(
        max_steps=2,
        val_check_interval=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=str(folder),
    )
    model.set_trainer(trainer)
    model.setup_training_data(OmegaConf.create(data(manifest)))
    model.setup_validation_data(OmegaConf.create(data(manifest)))
    model.setup_optimization(OmegaConf.create({"name": "adamw", "lr": 0.05}))
    trainer.fit(model)
    assert trainer.global_step == 2
    return trainer


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [True, False])
def test_disabling_gives_the_base_back(
    model: EncDecCTCModel, batch: dict[str, Tensor], name: str, training: bool
) -> None:
    expected, state = outputs(model, batch), base_state(model)
    prepare(model, name)
    untrained = adapter_state(model)
    assert_equal_to_the_bit(outputs(model, batch), expected)
    take_steps(model.train(training), batch)
    assert not any(map(torch.equal, adapter_state(model)[-2:], untrained[-2:]))
    assert all(torch.equal(value, state[key]) for key, value in base_state(model).items())
    adapted = outputs(model, batch)
    assert not torch.allclose(adapted[0], expected[0])
    model.set_enabled_adapters(name, enabled=False)
    assert_equal_to_the_bit(outputs(model, batch), expected)
    model.set_enabled_adapters(name, enabled=True)
    assert_equal_to_the_bit(outputs(model, batch), adapted)


@pytest.mark.parametrize("layers", ["last", "all"])
def test_stock_flow_with_lightning_leaves_the_base(
    model: EncDecCTCModel, batch: dict[str, Tensor], manifest: Path, tmp_path: Path, layers: str
) -> None:
    expected, state = outputs(model, batch), base_state(model)
    model.add_adapter("other", MLPAdapterConfig(hidden_dims=[4]))
    untouched = adapter_state(model, "other")
    prepare(model, layers=layers)
    untrained = adapter_state(model)
    model.transcribe(sorted(map(str, manifest.parent.glob("utterance*"))), batch_size=2, verbose=False)
    trainer = fit(model, manifest, tmp_path)
    assert not any(map(torch.equal, adapter_state(model)[-2:], untrained[-2:]))
    assert all(map(torch.equal, adapter_state(model, "other"), untouched))
    assert all(torch.equal(value, state[key]) for key, value in base_state(model).items())
    adapted = outputs(model, batch)
    assert not torch.allclose(adapted[0], expected[0])
    trainer.validate(model, verbose=False)
    assert_equal_to_the_bit(outputs(model, batch), adapted)
    model.set_enabled_adapters(enabled=False)
    assert_equal_to_the_bit(outputs(model, batch), expected)
    model.set_enabled_adapters("user")
    model.save_to(str(tmp_path / "model.nemo"))
    restored = EncDecCTCModel.restore_from(str(tmp_path / "model.nemo"), map_location="cpu")
    assert restored.get_enabled_adapters() == ["user"]
    assert_equal_to_the_bit(outputs(restored, batch), adapted)


@pytest.mark.parametrize("between", ["train", "transcribe", "validate"])
def test_nothing_in_between_disturbs_the_base(
    model: EncDecCTCModel, batch: dict[str, Tensor], manifest: Path, tmp_path: Path, between: str
) -> None:
    expected, state = outputs(model, batch), base_state(model)
    prepare(model)
    take_steps(model.train(), batch)
    model.set_enabled_adapters(enabled=False)
    if between == "train":
        features = {"processed_signal": torch.randn(2, 16, 30), "processed_signal_length": torch.tensor([30, 8])}
        assert torch.equal(model.train()(**features)[0], model.eval()(**features)[0])
    elif between == "transcribe":
        model.train().transcribe(sorted(map(str, manifest.parent.glob("utterance*"))), verbose=False)
    else:
        model.setup_validation_data(OmegaConf.create(data(manifest)))
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=str(tmp_path)
        )
        model.set_trainer(trainer)
        (results,) = trainer.validate(model.train(), verbose=False)
        assert results["val_wer"] >= 0
    assert all(torch.equal(value, state[key]) for key, value in base_state(model).items())
    assert_equal_to_the_bit(outputs(model, batch), expected)


def test_unfreezing_the_base_trains_it_again(model: EncDecCTCModel, batch: dict[str, Tensor]) -> None:
    prepare(model)
    take_steps(model.train(), batch)
    state = base_state(model)
    model.unfreeze()
    model.train()
    norms = [module for module in model.modules() if isinstance(module, MaskedBatchNorm)]
    means = []

    def keep_mean(norm: MaskedBatchNorm, args: tuple[Tensor, Tensor], output: Tensor) -> None:
        channels_last, mask = output.movedim(norm.channel_dim, -1), args[1].movedim(norm.channel_dim, -1)
        real = channels_last[mask.expand_as(channels_last)].view(-1, norm.num_features)
        means.append((real.mean(0).detach(), norm.bias.detach().clone()))

    for norm in norms:
        norm.register_forward_hook(keep_mean)
    take_steps(model, batch, steps=1)
    assert len(means) == len(norms) == 4
    for mean, bias in means:  # batch statistics: a mean of 0 before the bias
        torch.testing.assert_close(mean, bias, rtol=0, atol=1e-5)
    changed = {name for name, value in base_state(model).items() if not torch.equal(value, state[name])}
    trainable = {name for name, _ in model.named_parameters() if "adapter_layer" not in name}
    assert changed >= {name for name in state if name.endswith(("running_mean", "running_var"))}
    assert changed >= {name for name in trainable if "preprocessor" not in name and not name.endswith("conv.bias")}


def test_dropout_of_the_adapter_is_active_while_the_base_is_frozen(
    model: EncDecCTCModel, batch: dict[str, Tensor]
) -> None:
    prepare(model)
    take_steps(model, batch)  # in eval mode: unfreeze_enabled_adapters() put the adapter alone in training mode
    features = {"processed_signal": torch.randn(1, 16, 30), "processed_signal_length": torch.tensor([30])}
    assert not model.encoder.training and model.encoder.adapter_points["0"].adapter_layer["user"].training
    assert not torch.equal(model(**features)[0], model(**features)[0])
    model.eval()
    assert torch.equal(model(**features)[0], model(**features)[0])
