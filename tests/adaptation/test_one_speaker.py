"""An adapter is kept only where a person's own recordings show that it helps."""

from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.adaptation.adapt import adapt
from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.errors import InputError

QUICK = {
    "batch_size": 2,
    "max_epochs": 3,
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "hidden_dims": [4],
    "create_tensorboard_logger": False,
}


def test_noise_is_not_learnt(make_model, manifest: Path, tmp_path: Path, batch) -> None:
    """The recordings are noise: cross-validation keeps the base, bit for bit, and says so."""
    model = make_model()
    result = adapt(model, "anna", manifest, exp_dir=str(tmp_path), layers="all", **QUICK)
    assert (result.epochs, result.wer_after) == (0, result.wer_before)
    assert result.lines()[0] == "adapter anna: no epoch was better than the start, which was kept"
    restored = EncDecCTCModel.restore_from(str(result.model_path), map_location="cpu").eval()
    with torch.no_grad():
        assert torch.equal(restored(**batch)[0], make_model()(**batch)[0])


def test_a_continued_adapter_is_compared_with_itself(make_model, disturb, manifest: Path, tmp_path: Path) -> None:
    model = make_model()
    add_adapter(model, "anna", {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [4]})
    disturb(model, "anna")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    quick = {key: value for key, value in QUICK.items() if key != "hidden_dims"}
    result = adapt(model, "anna", manifest, exp_dir=str(tmp_path), continue_existing=True, **quick)
    assert result.epochs == 0
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_one_utterance_is_too_little(make_model, manifest: Path, tmp_path: Path) -> None:
    one = tmp_path / "one.json"
    one.write_text(manifest.read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError, match="one utterance cannot tell whether an adapter helps"):
        adapt(make_model(), "anna", one, exp_dir=str(tmp_path), **QUICK)
    assert adapt(make_model(), "anna", one, exp_dir=str(tmp_path), folds=0, **QUICK).epochs == 3


@pytest.mark.parametrize("folds", [1, -3])
def test_one_fold_cannot_take_turns(make_model, manifest: Path, tmp_path: Path, folds: int) -> None:
    with pytest.raises(InputError, match=f"model.adapter.folds={folds}: at least 2 parts must take turns"):
        adapt(make_model(), "anna", manifest, exp_dir=str(tmp_path), folds=folds, **QUICK)


def test_settings_that_do_not_go_with_cross_validation(make_model, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use_semi_sorted_batching=False does not go with cross-validation"):
        adapt(make_model(), "anna", manifest, exp_dir=str(tmp_path), use_semi_sorted_batching=False, **QUICK)


@pytest.mark.parametrize("patience", [0, 1.5, "never"])
def test_patience_is_a_number_of_epochs(make_model, manifest: Path, tmp_path: Path, patience: object) -> None:
    with pytest.raises(InputError, match=f"model.adapter.patience={patience}: expected at least 1 epoch, or null"):
        adapt(make_model(), "anna", manifest, exp_dir=str(tmp_path), patience=patience, **QUICK)
