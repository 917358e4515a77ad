"""The wheel, installed where nothing of the checkout can be seen."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

CHECKOUT = Path(__file__).parents[2]
PACKAGE = "nemo_ds2_adapters"
SOURCES = [PACKAGE, "hydra_plugins", "conf", "setup.cfg", "pyproject.toml", "LICENSE", "README.md"]

SCRIPT = """
import json
import sys

import torch
from nemo.collections.asr.models import ASRModel, EncDecCTCModel
from nemo.core.config import hydra_runner


@hydra_runner(config_name="deepspeech2_small")
def main(cfg):
    EncDecCTCModel(cfg=cfg.model).save_to("tiny.nemo")
    model = ASRModel.restore_from("tiny.nemo", map_location="cpu").eval()
    features, lengths = torch.zeros(1, cfg.model.encoder.feat_in, 40), torch.tensor([40])
    with torch.no_grad():
        log_probs, _, _ = model(processed_signal=features, processed_signal_length=lengths)
    result = {
        "plugin": sys.modules["hydra_plugins.nemo_ds2_adapters"].__file__,
        "encoder": sys.modules[type(model.encoder).__module__].__file__,
        "shape": list(log_probs.shape),
        "labels": len(model.cfg.labels),
        "path": sys.path,
    }
    with open("result.json", "w") as file:
        json.dump(result, file)


main()
"""


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Standard output of a program that has to end well."""
    environment = {**os.environ, **environment}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_installed(installed: Path, folder: Path, *arguments: str) -> str:
    """Run a Python program that sees the installed wheel and its dependencies, and nothing of the checkout."""
    # -S: without the .pth files of site-packages, among them the one of an editable install of this checkout
    path = os.pathsep.join([str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    return run([sys.executable, "-S", *arguments], folder, PYTHONPATH=path)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that neither old builds nor this one's leftovers matter."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"], folder)
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed in, without its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    run([*pip, "--target", str(folder), str(wheel)], folder)
    return folder


def test_wheel_holds_the_package_its_configs_and_the_plugin_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {f"{PACKAGE}/py.typed", f"{PACKAGE}/__init__.pyi", f"hydra_plugins/{PACKAGE}/__init__.py"}
    expected |= {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / PACKAGE).rglob("*.py")}
    expected |= {f"{PACKAGE}/{path.relative_to(CHECKOUT)}" for path in (CHECKOUT / "conf").rglob("*.yaml")}
    shown = (path for path in (CHECKOUT / PACKAGE / "serving").rglob("*") if path.is_file())  # prompts, and the page
    expected |= {str(path.relative_to(CHECKOUT)) for path in shown if path.suffix != ".pyc"}
    assert {".yaml", ".tsv"} <= {Path(name).suffix for name in expected}
    assert held == expected


@pytest.mark.slow
def test_installed_script_that_knows_only_nemo_finds_configs_and_restores(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    tiny = ["model.encoder.n_layers=1", "model.encoder.d_model=8", "model.encoder.conv_channels=[2,2]"]
    run_installed(installed, tmp_path, "script.py", "~model.train_ds", "~model.validation_ds", *tiny)
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert str(CHECKOUT) not in result["path"]
    assert Path(result["plugin"]).is_relative_to(installed)
    assert Path(result["encoder"]).is_relative_to(installed)
    assert result["shape"] == [1, 20, result["labels"] + 1]


@pytest.mark.slow
def test_who_has_only_the_wheel_trains_evaluates_and_lists(installed: Path, tmp_path: Path) -> None:
    """On the demo's base and two recordings, with the program that pip puts on the path."""
    program = str(installed / "bin" / "ds2-adapters")
    shutil.copy(CHECKOUT / "demo" / "base.nemo", tmp_path / "base.nemo")
    lines = []
    for i, text in enumerate(("yes", "no")):
        noise = np.random.default_rng(i).normal(scale=0.1, size=16000)
        soundfile.write(tmp_path / f"{i}.wav", noise, 16000)
        lines.append(json.dumps({"audio_filepath": f"{i}.wav", "duration": 1.0, "text": text}))
    (tmp_path / "ann.json").write_text("\n".join(lines), encoding="utf-8")
    said = run_installed(
        installed,
        tmp_path,
        program,
        "train",
        "model.nemo_model=base.nemo",
        "model.adapter.adapter_name=ann",
        "model.train_ds.manifest_filepath=ann.json",
        "model.adapter.folds=0",
        "trainer.max_epochs=1",
        "trainer.enable_progress_bar=false",
        "exp_manager.version=run",
    )
    assert "adapter ann: 1 epochs" in said
    checkpoints = tmp_path / "nemo_experiments" / "ASR-Adapter" / "run" / "checkpoints"
    (row,) = json.loads(
        run_installed(installed, tmp_path, program, "list", str(checkpoints / "adapters.pt"), "--json")
    )
    assert row["name"] == "ann"
    said = run_installed(
        installed,
        tmp_path,
        program,
        "eval",
        f"model.nemo_model={checkpoints / 'ASR-Adapter.nemo'}",
        "model.adapter.adapter_name=ann",
        "model.test_ds.manifest_filepath=ann.json",
        "trainer.enable_progress_bar=false",
    )
    assert "ann: WER" in said
