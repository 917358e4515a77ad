"""Training by the original's calls: what is trained, from where it starts, and what is written."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from torch.optim.optimizer import register_optimizer_step_pre_hook

from nemo_ds2_adapters import (
    AdapterManager,
    AdapterTrainer,
    InputError,
    add_adapter,
    copy_adapter,
    enable_adapters,
    enabled_adapters,
    list_adapters,
)
from nemo_ds2_adapters.adapters.blocks import adapter_parts
from nemo_ds2_adapters.adapters.enabling import enabled_names
from nemo_ds2_adapters.modules import MLPAdapterConfig

QUICK = {"accelerator": "cpu", "enable_progress_bar": False, "create_tensorboard_logger": False, "folds": 0}


def weights(model: EncDecCTCModel, name: str) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for _, part in adapter_parts(model, name) for p in part.parameters()])


@pytest.fixture
def trainer(manifest: Path, tmp_path: Path) -> Callable[..., AdapterTrainer]:
    return lambda **settings: AdapterTrainer(
        manifest, adapter_save_dir=tmp_path / "adapters", **{**QUICK, "lr": 0.01, **settings}
    )


def test_head_of_the_original_is_trained_and_written_in_its_format(build, trainer, tmp_path: Path) -> None:
    model = build(use_adapter=True)
    start = weights(model, "default")
    trained = trainer().train(model=model, batch_size=2, num_epochs=2, adapter_name="user_john")
    assert trained is model and list_adapters(model) == ["default", "user_john"]
    assert torch.equal(weights(model, "default"), start)
    assert not torch.equal(weights(model, "user_john"), start)
    path = tmp_path / "adapters" / "user_john_adapter.pt"
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {path.name}
    assert AdapterManager.get_adapter_info(path)["hidden_dims"] == [5, 3]
    other = build(seed=0)
    AdapterManager.load_adapter(other, path)
    assert torch.equal(weights(other, "user_john"), weights(model, "user_john"))


def test_second_adapter_starts_from_the_enabled_one(build, trainer, outputs) -> None:
    model = build()
    john = trainer(layers="first", hidden_dims=[4]).train(model, 2, 2, "john")
    before, of_john = weights(john, "john"), outputs(model)
    trainer(lr=1e-7, sched={"name": "CosineAnnealing"}).train(model, 2, 1, "anna")
    torch.testing.assert_close(weights(model, "anna"), before, atol=1e-6, rtol=0)
    assert not torch.equal(weights(model, "anna"), before)
    torch.testing.assert_close(outputs(model), of_john, atol=1e-4, rtol=0)
    with enabled_adapters(model, None):
        assert not torch.allclose(outputs(model), of_john)


def test_same_name_is_trained_on(build, trainer) -> None:
    model = build()
    trainer(hidden_dims=[4]).train(model, 2, 2, "john")
    before = weights(model, "john")
    again = trainer()
    again.train(model, 2, 1, "john")
    assert list_adapters(model) == ["john"] and not torch.equal(weights(model, "john"), before)
    assert again.result is not None and len(again.result.history) == 1


def test_tri_stage_schedule(build, trainer) -> None:
    rates: list[float] = []

    def remember(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        rates.append(optimizer.param_groups[0]["lr"])

    handle = register_optimizer_step_pre_hook(remember)
    schedule = {"init_lr": 1e-5, "peak_lr": 1e-3, "final_lr": 1e-4, "warmup_steps": 2}
    trainer(**schedule).train(build(), batch_size=2, num_epochs=2, adapter_name="john")
    handle.remove()
    assert rates == pytest.approx([1e-5, 5.05e-4, 1e-3, 1e-3 * 0.1**0.5])
    with pytest.raises(InputError, match="warmup_steps=9 and hold_steps=0 do not fit into the 2 steps"):
        trainer(**{**schedule, "warmup_steps": 9}).train(build(), batch_size=2, num_epochs=1, adapter_name="john")
    with pytest.raises(InputError, match="peak_lr and sched: give one of the two"):
        trainer(peak_lr=1e-3, sched={"name": "CosineAnnealing"})


def test_wrong_input_is_named_before_anything_changes(build, trainer, manifest: Path, tmp_path: Path) -> None:
    model: Any = build(use_adapter=True)
    with pytest.raises(InputError, match="adapter_name='a/b': is to be part of a file name"):
        trainer().train(model, adapter_name="a/b")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: give the directory, the file in it will be john_adapter.pt"):
        AdapterTrainer(manifest, adapter_save_dir=tmp_path / "file").train(model, adapter_name="john")
    with pytest.raises(InputError, match="unknown setting hidden_dim, the nearest is hidden_dims"):
        trainer(hidden_dim=[4]).train(model, adapter_name="john")
    with pytest.raises(InputError, match="warmup_steps=9"):
        trainer(warmup_steps=9).train(model, 2, 1, adapter_name="john")
    assert enabled_names(model) == ["default"]
    add_adapter(model, "second", MLPAdapterConfig(hidden_dims=[4]))
    copy_adapter(model, "second", "third")
    enable_adapters(model, ["second", "third"])
    with pytest.raises(InputError, match="second, third are enabled: enable the one that john is to start from"):
        trainer().train(model, adapter_name="john")
    assert list_adapters(model) == ["default", "second", "third"]


def test_log_files_end_with_the_folder_they_are_in(build, trainer) -> None:
    trainer().train(build(), 2, 1, "john")
    logging.shutdown(logging._handlerList[:])  # what Hydra does, through logging.config; a message opens files again
    logging.getLogger("nemo_logger").error("after training")
    logging.getLogger("lightning.pytorch").error("after training")
