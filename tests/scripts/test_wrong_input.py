"""Wrong input ends in one line that names the thing, before anything is trained or written."""

import json
from pathlib import Path

import pytest
from omegaconf import DictConfig

from nemo_ds2_adapters.modules import MLPAdapterConfig

TRAIN, EVALUATE = "asr_adapters/train_asr_adapter.py", "asr_adapters/eval_asr_adapter.py"


def error_of(call_script, name: str, cfg: DictConfig) -> str:
    with pytest.raises(SystemExit) as end:
        call_script(name, cfg)
    message = end.value.code
    assert isinstance(message, str) and message.startswith("error: ") and "\\n" not in message
    return message


def test_transcripts_outside_the_vocabulary(call_script, config: DictConfig, manifest: Path, tmp_path: Path) -> None:
    entry = json.loads(manifest.read_text().splitlines()[0])
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({**entry, "text": "Zürich 5"}))
    config.model.train_ds.manifest_filepath = str(wrong)
    assert "'5' 'Z' 'ü'" in error_of(call_script, TRAIN, config)


def test_existing_name(call_script, config: DictConfig, make_model, tmp_path: Path) -> None:
    model = make_model()
    model.add_adapter("user_john", MLPAdapterConfig())
    model.save_to(str(tmp_path / "adapted.nemo"))
    config.model.nemo_model = str(tmp_path / "adapted.nemo")
    assert "model.adapter.adapter_name=user_john: such an adapter exists already" in error_of(
        call_script, TRAIN, config
    )
    config.model.adapter.init_from = "user_john"
    config.model.adapter.continue_existing = True
    assert "continue_existing and model.adapter.init_from, both are set" in error_of(call_script, TRAIN, config)
    config.model.adapter.continue_existing = False
    config.model.adapter.adapter_module_name = "decoder"
    config.model.adapter.adapter_name = "user_j"
    assert "init_from=user_john sits in encoder: leave it out" in error_of(call_script, TRAIN, config)
    config.model.adapter.init_from = config.model.adapter.adapter_module_name = None
    assert "its adapters are user_john" in error_of(call_script, EVALUATE, config)
    config.model.adapter.unfreeze_base = True
    assert "would spoil user_john" in error_of(call_script, TRAIN, config)


def test_no_nemo_archive(call_script, config: DictConfig, tmp_path: Path) -> None:
    (tmp_path / "text.nemo").write_text("no archive")
    config.model.nemo_model = str(tmp_path / "text.nemo")
    assert "text.nemo: not a .nemo archive" in error_of(call_script, TRAIN, config)


def test_encoder_without_adapters(call_script, config: DictConfig, make_model, tmp_path: Path) -> None:
    model = make_model()
    model.cfg.encoder._target_ = "nemo.collections.asr.modules.RNNEncoder"
    model.save_to(str(tmp_path / "plain.nemo"))
    config.model.nemo_model = str(tmp_path / "plain.nemo")
    assert "RNNEncoder takes no adapters" in error_of(call_script, TRAIN, config)


def test_from_the_command_line(start_script, base_nemo: Path) -> None:
    finished = start_script(TRAIN, f"model.nemo_model={base_nemo}", "model.adapter.adapter_nam=john")
    assert finished.returncode == 1
    assert finished.stderr.strip().splitlines()[-1] == (
        "error: unknown config key model.adapter.adapter_nam, the nearest known one is model.adapter.adapter_name"
    )
