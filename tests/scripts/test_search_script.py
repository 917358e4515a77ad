"""The search as a person runs it, with Hydra's own sweeper and with Optuna's."""

import csv
import importlib.util
from pathlib import Path

import pytest

SEARCH = "asr_adapters/search_asr_adapter.py"
GRID = "--config-name=asr_adaptation_grid"
WITH_OPTUNA = importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is not None


def overrides(base_nemo: Path, manifest: Path) -> list[str]:
    return [
        f"model.nemo_model={base_nemo}",
        f"model.train_ds.manifest_filepath={manifest}",
        f"model.validation_ds.manifest_filepath={manifest}",
        f"search.base_manifest={manifest}",
        "trainer.max_epochs=1",
        "hydra.sweep.dir=search",
    ]


@pytest.mark.slow
def test_grid(run_script, base_nemo: Path, manifest: Path, tmp_path: Path) -> None:
    single = ["model.adapter.mlp.hidden_dims=[4]", "model.optim.lr=0.01,0.02", "model.adapter.kl_weight=0.0"]
    finished = run_script(
        SEARCH, "--multirun", GRID, *overrides(base_nemo, manifest), *single, "model.adapter.mlp.layers=first"
    )
    assert finished.returncode == 0, finished.stderr
    # Training and validation are the same four recordings here; a second trial finds their activations.
    assert "computed once, 0 utterances" in finished.stdout
    assert "Best first" in finished.stdout and "search/trials.csv" in finished.stdout
    rows = list(csv.DictReader((tmp_path / "search" / "trials.csv").open(encoding="utf-8")))
    assert sorted(row["model.optim.lr"] for row in rows) == ["0.01", "0.02"]
    assert all(0.0 <= float(row["score"]) <= 1.0 for row in rows)
    assert len(list((tmp_path / "search").rglob("adapters.pt"))) == 2
    assert not list((tmp_path / "search").rglob("*.nemo"))


@pytest.mark.slow
def test_optuna_or_one_line_that_says_what_is_missing(run_script, base_nemo: Path, manifest: Path) -> None:
    finished = run_script(SEARCH, "--multirun", *overrides(base_nemo, manifest), "hydra.sweeper.n_trials=2")
    if WITH_OPTUNA:
        assert finished.returncode == 0, finished.stderr
        assert "Best value" in finished.stdout and "Best first" in finished.stdout
    else:
        assert finished.returncode == 1
        (line,) = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
        assert "pip install 'nemo_ds2_adapters[search]'" in line and "asr_adaptation_grid" in line
