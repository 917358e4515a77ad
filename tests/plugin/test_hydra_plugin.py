"""Hydra scripts that never import this package: each test runs one in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from omegaconf import OmegaConf

CHECKOUT = Path(__file__).parents[2]
CONFIGS = CHECKOUT / "conf"
SAMPLE_RATE = 16000  # Hz
WITH_OPTUNA = importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is not None
NEED_OPTUNA = {"asr_adaptation_hp"}  # cannot be composed without the extra [search]
TINY = ["model.encoder.n_layers=1", "model.encoder.d_model=8", "model.encoder.conv_channels=[2,2]"]

BUILD = """
import lightning.pytorch as pl
from nemo.collections.asr.models import EncDecCTCModel
from nemo.core.config import hydra_runner


@hydra_runner(config_name="deepspeech2_small")
def main(cfg):
    trainer = pl.Trainer(**cfg.trainer)
    EncDecCTCModel(cfg=cfg.model, trainer=trainer).save_to("tiny.nemo")


main()
"""

RESTORE_TRAIN_TRANSCRIBE = """
import json

import lightning.pytorch as pl
import torch
from nemo.core import ModelPT
from nemo.core.config import hydra_runner


@hydra_runner(config_name="deepspeech2_small")
def main(cfg):
    model = ModelPT.restore_from("tiny.nemo", map_location="cpu")
    before = torch.cat([p.detach().flatten() for p in model.encoder.parameters()])
    model.setup_training_data(cfg.model.train_ds)
    model.setup_optimization(cfg.model.optim)
    trainer = pl.Trainer(**cfg.trainer)
    trainer.fit(model)
    after = torch.cat([p.detach().flatten() for p in model.encoder.parameters()])
    hypotheses = model.transcribe([cfg.audio], batch_size=1, verbose=False)
    result = {
        "encoder": f"{type(model.encoder).__module__}.{type(model.encoder).__name__}",
        "decoder": f"{type(model.decoder).__module__}.{type(model.decoder).__name__}",
        "steps": trainer.global_step,
        "loss": trainer.callback_metrics["train_loss"].item(),
        "change": (after - before).abs().max().item(),
        "texts": [hypothesis.text for hypothesis in hypotheses],
    }
    with open("result.json", "w") as file:
        json.dump(result, file)


main()
"""

FIND_CONFIGS = """
import json
import sys

from hydra import compose, initialize
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from nemo.core import ModelPT

scanned_by_nemo = Plugins in Singleton._instances
with initialize(version_base=None):
    result = {"scanned_by_nemo": scanned_by_nemo, "keys": {n: list(compose(n)) for n in sys.argv[1:]}}
with open("result.json", "w") as file:
    json.dump(result, file)
"""

UNRELATED = """
import json
import sys

import hydra


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    with open("result.json", "w") as file:
        json.dump(sorted(sys.modules), file)


main()
"""


def run(folder: Path, source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in `folder`; the package is installed as far as the script can tell."""
    assert "nemo_ds2_adapters" not in source
    script = folder / "script.py"
    script.write_text(source, encoding="utf-8")
    command = [sys.executable, str(script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def read_result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of noise and their NeMo manifest."""
    folder = tmp_path_factory.mktemp("recordings")
    entries = []
    for i, text in enumerate(["yes", "no"]):
        noise = np.random.default_rng(i).normal(scale=0.1, size=SAMPLE_RATE)
        soundfile.write(folder / f"{i}.wav", noise, SAMPLE_RATE)
        entries.append({"audio_filepath": f"{i}.wav", "duration": 1.0, "text": text})
    path = folder / "manifest.json"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


@pytest.mark.slow
def test_script_that_knows_only_nemo_restores_trains_and_transcribes(tmp_path: Path, manifest: Path) -> None:
    cpu = ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
    run(tmp_path, BUILD, *TINY, *cpu, "~model.train_ds", "~model.validation_ds")
    result_of = [
        f"model.train_ds.manifest_filepath={manifest}",
        "~model.train_ds.augmentor",
        "trainer.max_epochs=1",
        f"+audio={manifest.parent / '0.wav'}",
    ]
    run(tmp_path, RESTORE_TRAIN_TRANSCRIBE, *cpu, *result_of)
    result = read_result(tmp_path)
    assert result["encoder"] == "nemo_ds2_adapters.modules.DeepSpeech2Encoder"
    assert result["decoder"] == "nemo_ds2_adapters.modules.DeepSpeech2Decoder"
    assert result["steps"] == 1
    assert np.isfinite(result["loss"]) and result["loss"] > 0
    assert result["change"] > 0
    assert len(result["texts"]) == 1
    assert isinstance(result["texts"][0], str)


@pytest.mark.slow
def test_every_config_is_found_by_name_with_and_without_its_folder(tmp_path: Path) -> None:
    files = [file for file in sorted(CONFIGS.glob("*/*.yaml")) if WITH_OPTUNA or file.stem not in NEED_OPTUNA]
    assert files
    names = [name for file in files for name in (file.stem, f"{file.parent.name}/{file.stem}")]
    run(tmp_path, FIND_CONFIGS, *names)
    result = read_result(tmp_path)
    assert result["scanned_by_nemo"], "NeMo no longer scans for plugins while it is imported"
    for file in files:
        own_keys = OmegaConf.load(file).keys() - {"defaults", "hydra"}
        keys = result["keys"][file.stem]
        assert keys and own_keys <= {*keys}
        assert result["keys"][f"{file.parent.name}/{file.stem}"] == keys


def test_app_without_nemo_is_left_alone(tmp_path: Path) -> None:
    run(tmp_path, UNRELATED)
    modules = read_result(tmp_path)
    assert "hydra_plugins.nemo_ds2_adapters" in modules, "the plugin was not found, so this proves nothing"
    assert not {"nemo", "nemo_ds2_adapters", "torch"} & set(modules)
    listing = run(tmp_path, UNRELATED, "--info", "searchpath").stdout + run(tmp_path, UNRELATED, "--help").stdout
    assert "deepspeech2" not in listing
    assert "nemo_ds2_adapters" not in listing
