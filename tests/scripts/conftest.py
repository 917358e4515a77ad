"""A tiny base model, and the scripts as programs and as functions."""

import importlib.util
import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import DictConfig, OmegaConf

from nemo_ds2_adapters.configs import shipped_config

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "examples" / "asr"


class Finished(NamedTuple):
    """How a program ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Finished]]:
    """Run a script below examples/asr as if from an empty directory, in this process: NeMo takes long to import."""

    def run(name: str, *overrides: str) -> Finished:
        out, err = io.StringIO(), io.StringIO()
        code: int | str | None = 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                loaded(name).main(overrides)
            except SystemExit as end:
                code = end.code
        if isinstance(code, str):  # which Python prints at the end of a process
            err.write(f"{code}\n")
            code = 1
        return Finished(code or 0, out.getvalue(), err.getvalue())

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    yield run
    logging.disable(logging.NOTSET)


@pytest.fixture
def start_script(tmp_path: Path) -> Callable[..., Finished]:
    """Run a script below examples/asr in an empty directory, in a process of its own."""

    def run(name: str, *overrides: str) -> Finished:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
        command = [sys.executable, str(SCRIPTS / name), *overrides]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


def loaded(name: str) -> ModuleType:
    """A script below examples/asr as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, SCRIPTS / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def base_nemo(make_model, tmp_path: Path) -> Path:
    """A base model as a file, with an encoder that takes no adapters yet."""
    path = tmp_path / "base.nemo"
    make_model(adapters=False).save_to(str(path))
    return path


@pytest.fixture
def call_script() -> Callable[[str, DictConfig], None]:
    """Call the main function of a script with a config, in this process."""

    return lambda name, cfg: loaded(name).main(cfg)


@pytest.fixture
def config(base_nemo: Path, manifest: Path, tmp_path: Path) -> DictConfig:
    """A config that trains: tests spoil one thing in it."""
    cfg = shipped_config("asr_adapters/asr_adaptation")
    cfg.model.nemo_model = str(base_nemo)
    cfg.model.adapter.adapter_name = "user_john"
    for section in ("train_ds", "validation_ds", "test_ds"):
        OmegaConf.update(cfg, f"model.{section}.manifest_filepath", str(manifest))
    cfg.trainer.max_epochs = 1
    cfg.exp_manager.exp_dir = str(tmp_path / "experiments")
    return cfg


@pytest.fixture
def restore() -> Callable[[Path], EncDecCTCModel]:
    """A model from a file, on the CPU and in eval mode."""
    return lambda path: EncDecCTCModel.restore_from(str(path), map_location="cpu").eval()
