"""Every line of the page that puts the original's calls beside ours."""

import re
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import OmegaConf

from nemo_ds2_adapters.adapters.enabling import enabled_names
from nemo_ds2_adapters.cli.scripts.script import check_config
from nemo_ds2_adapters.compat import build_deepspeech2
from nemo_ds2_adapters.configs import shipped_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "original_api.md").read_text(encoding="utf-8")


def cells(beginning: str) -> list[str]:
    """What stands in the right-hand column of the table after a line that begins so, one text per piece of code."""
    table = PAGE[PAGE.index(f"\n{beginning}") :].partition("| --- | --- |\n")[2].partition("\n\n")[0]
    return [code for row in table.splitlines() for code in re.findall(r"`([^`]+)`", row.split(" | ")[1])]


def test_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"signal": torch.randn(2, 4000), "signal_lengths": torch.tensor([4000, 3000])}
    (imports,) = re.findall(r"```python\n(.*?)```", PAGE.partition("## Training")[0], re.DOTALL)
    exec(imports, names)
    calls = cells("## Calls")
    assert len(calls) == 13
    for call in calls:
        exec(call, names)
    assert names["adapter_output"].shape[-1] == 29
    assert "Linear(in_features=1024, out_features=512" in capsys.readouterr().out
    assert {path.name for path in tmp_path.rglob("*.pt")} == {"user_john_adapter.pt", "base.pt"}


def test_training(build, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train", "validation", "john"):
        (tmp_path / f"{name}.json").write_text(manifest.read_text(encoding="utf-8"), encoding="utf-8")
    names = {"model": build(use_adapter=True, num_rnn_layers=1)}
    exec("from nemo_ds2_adapters import AdapterManager, AdapterTrainer", names)
    calls = cells("## Training")
    assert len(calls) == 5
    with_validation, train, without_validation, load, train_another = calls
    exec(with_validation, names)
    exec(train, names)  # on noise, which makes nothing better
    assert not names["trainer"].result.is_kept and enabled_names(names["model"]) == []
    assert not list(tmp_path.rglob("*.pt"))
    for call in (without_validation, train, load, train_another):
        exec(call, names)
    assert {path.name for path in tmp_path.rglob("*.pt")} == {"user_john_adapter.pt", "user_anna_adapter.pt"}


def test_keys_of_a_base() -> None:
    cfg, shipped = shipped_config("deepspeech2/deepspeech2"), shipped_config("deepspeech2/deepspeech2")
    differences = re.findall(r"`(model\.[^`]+=[^`]+)`", PAGE.partition("KoSpeech's differs")[2])
    assert len(differences) == 6
    cfg.merge_with_dotlist([*cells("Of a base"), *differences])
    check_config(cfg, shipped)
    OmegaConf.resolve(cfg)
    for section in ("train_ds", "validation_ds", "test_ds", "optim"):
        del cfg.model[section]
    model = EncDecCTCModel(cfg=cfg.model)
    assert len(model.encoder.layers) == 5 and model.encoder.layers[0].output_size == 2 * 512
    original = build_deepspeech2()
    assert {key: value.shape for key, value in model.state_dict().items()} == {
        key: value.shape for key, value in original.state_dict().items()
    }
