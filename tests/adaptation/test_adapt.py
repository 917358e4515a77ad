"""Training an adapter: on stored activations as on recordings, and never worse than its start."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.collections.asr.modules import SpectrogramAugmentation

from nemo_ds2_adapters.adaptation.adapt import adapt
from nemo_ds2_adapters.adaptation.report import Adaptation
from nemo_ds2_adapters.adapters.blocks import adapter_parts, list_adapters
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.errors import InputError

QUICK = {
    "batch_size": 2,
    "max_epochs": 4,
    "lr": 0.01,
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "create_tensorboard_logger": False,
}
ADAPTERS = {
    "first": {"layers": "first", "hidden_dims": [4]},
    "last": {"layers": "last", "hidden_dims": [4]},
    "all": {"layers": "all", "hidden_dims": [4]},
    "list": {"layers": [1], "hidden_dims": [4]},
    "linear": {"adapter_type": "linear", "dim": 4, "layers": "first"},
    "decoder": {"adapter_module_name": "decoder", "hidden_dims": [4]},
    "head": {"adapter_module_name": "decoder", "adapter_type": "mlp_head", "hidden_dims": [4]},
    "both": {"adapter_module_name": "encoder+decoder", "hidden_dims": [4]},
}


def weights(model: EncDecCTCModel, name: str = "anna") -> torch.Tensor:
    return torch.cat([p.detach().flatten() for _, part in adapter_parts(model, name) for p in part.parameters()])


def said(caplog: pytest.LogCaptureFixture) -> str:
    """What the package has logged since it was asked last."""
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("nemo_ds2_adapters")]
    caplog.clear()
    return "\n".join(lines)


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "nemo_ds2_adapters")


@pytest.fixture
def run(make_model, manifest: Path, tmp_path: Path) -> Callable[..., tuple[EncDecCTCModel, Adaptation]]:
    runs = itertools.count()

    def train(validation: Path | None = manifest, **settings: object) -> tuple[EncDecCTCModel, Adaptation]:
        model, folder = make_model(), tmp_path / f"run{next(runs)}"
        return model, adapt(model, "anna", manifest, validation, **{**QUICK, "exp_dir": str(folder), **settings})

    return train


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_on_stored_activations_as_on_recordings(run, adapter: str, caplog: pytest.LogCaptureFixture) -> None:
    """Loss curves in single precision, weights in double (design 5.19)."""
    _, one = run(**ADAPTERS[adapter], cache="off")
    assert "computed in every epoch (model.adapter.cache=off)" in said(caplog)
    _, two = run(**ADAPTERS[adapter], cache="required")
    assert "computed once, 4 utterances" in said(caplog)  # training and validation are the same here
    assert [e["train_loss"] for e in one.history] == pytest.approx([e["train_loss"] for e in two.history], rel=1e-4)
    assert [e["val_wer"] for e in one.history] == [e["val_wer"] for e in two.history]
    assert one.history[-1]["train_loss"] < one.history[0]["train_loss"]


@pytest.mark.parametrize("adapter", ["first", "all", "head"])
@pytest.mark.parametrize("more", [{}, {"kl_weight": 0.5, "l2_weight": 0.1}, {"average_epochs": True}], ids=str)
def test_weights_are_the_same_in_double_precision(run, adapter: str, more: dict) -> None:
    settings = {**ADAPTERS[adapter], **more, "precision": "64-true"}
    (one, _), (two, _) = run(**settings, cache="off"), run(**settings, cache="required")
    assert weights(one).dtype == torch.float64
    torch.testing.assert_close(weights(one), weights(two), rtol=1e-4, atol=1e-8)


def test_without_schedule(run) -> None:
    _, result = run(lr=0.0, sched=None)
    assert len(result.history) == 4


def test_regularisers_hold_the_adapter_near_the_base(run) -> None:
    def distance(**settings: object) -> float:
        model, _ = run(None, layers="all", hidden_dims=[4], lr=0.03, folds=0, **settings)
        (_, part), *_ = adapter_parts(model, "anna")
        return float(part.module[-1].weight.detach().norm())

    free = distance()
    assert 0 < distance(kl_weight=100.0) < 0.8 * free
    assert 0 < distance(l2_weight=100.0) < 0.8 * free


def test_what_cannot_be_exact_is_said(make_model, manifest: Path, tmp_path: Path, caplog) -> None:
    model = make_model()
    settings = {**QUICK, "exp_dir": str(tmp_path), "max_epochs": 1}
    with pytest.raises(InputError, match="cache=required, but 2[0-9] tensors of the encoder itself are trained"):
        adapt(model, "anna", manifest, unfreeze_base=True, cache="required", **settings)
    adapt(make_model(), "anna", manifest, unfreeze_base=True, **settings)
    assert "computed in every epoch (2" in said(caplog)
    with pytest.raises(InputError, match="cache=sometimes: expected one of auto, off, required"):
        adapt(make_model(), "anna", manifest, cache="sometimes", **settings)


def test_spec_augment_is_applied_where_it_is_set(run, make_model, manifest: Path, tmp_path: Path) -> None:
    cfg = {"_target_": "nemo.collections.asr.modules.SpectrogramAugmentation", "freq_masks": 2, "freq_width": 8}
    _, plain = run(None, layers="all", hidden_dims=[4], cache="off")
    _, augmented = run(None, layers="all", hidden_dims=[4], cache="auto", folds=0, spec_augment=cfg)
    assert augmented.history[0]["train_loss"] != plain.history[0]["train_loss"]
    with pytest.raises(InputError, match="cache=required, but SpecAugment is on"):
        run(None, layers="all", hidden_dims=[4], cache="required", spec_augment=cfg)


def test_spec_augment_of_the_base_is_left_out(make_model, manifest: Path, tmp_path: Path) -> None:
    model = make_model()
    model.spec_augmentation = own = SpectrogramAugmentation(freq_masks=1, freq_width=2)
    settings = {**QUICK, "max_epochs": 2, "folds": 0, "exp_dir": str(tmp_path)}
    result = adapt(model, "anna", manifest, cache="required", **settings)
    assert model.spec_augmentation is own  # again
    seconds = [epoch["seconds"] for epoch in result.history]
    assert seconds == sorted(seconds) and 0 < seconds[-1] <= result.seconds


def test_kept_activations_are_used_by_a_later_run(run, tmp_path: Path, caplog) -> None:
    folder = tmp_path / "activations"
    for found in (0, 4):
        run(cache_dir=str(folder), layers="last", hidden_dims=[4], max_epochs=1)
        assert f"computed once, {4 - found} utterances" in said(caplog)
    run(cache_dir=str(folder), layers="first", hidden_dims=[4], max_epochs=1)
    assert "computed once, 4 utterances" in said(caplog)  # another point


def test_base_stays_as_it_was_and_the_result_is_told(run, make_model) -> None:
    model, result = run(layers="all", hidden_dims=[4])
    assert fingerprint(model) == fingerprint(make_model())
    assert list_adapters(model) == ["anna"] and len(result.history) == 4
    assert result.path is not None and result.path.is_file() and result.model_path.is_file()
    restored = EncDecCTCModel.restore_from(str(result.model_path), map_location="cpu")
    assert torch.equal(weights(restored), weights(model))


def test_no_epoch_better_than_the_base_keeps_the_base(run, batch) -> None:
    _, result = run(layers="all", hidden_dims=[4], lr=1e-7, sched={"name": "CosineAnnealing", "min_lr": 0.0})
    assert (result.epochs, result.wer_after) == (0, result.wer_before)
    assert "no epoch was better than the start" in result.lines()[0]
    restored = EncDecCTCModel.restore_from(str(result.model_path), map_location="cpu").eval()
    with torch.no_grad():
        adapted = restored(**batch)[0]
        restored.set_enabled_adapters(enabled=False)
        assert torch.equal(adapted, restored(**batch)[0])


def test_trainings_of_a_process_have_folders_of_their_own(make_model, manifest: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "exp_dir": str(tmp_path), "max_epochs": 1, "folds": 0, "layers": "last", "hidden_dims": [4]}
    one, two = (adapt(make_model(), "anna", manifest, **settings) for _ in range(2))
    assert one.model_path != two.model_path and one.model_path.is_file() and two.model_path.is_file()
    assert "NEMO_EXPM_VERSION" not in os.environ


def test_unknown_settings_are_named(make_model, manifest: Path) -> None:
    with pytest.raises(InputError, match="unknown setting max_epoch, the nearest is max_epochs; unknown setting lrr"):
        adapt(make_model(), "anna", manifest, max_epoch=3, lrr=1)


@pytest.mark.gpu
def test_on_a_gpu(run) -> None:
    _, result = run(layers="all", hidden_dims=[4], accelerator="gpu", cache="required", cache_precision="16")
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
