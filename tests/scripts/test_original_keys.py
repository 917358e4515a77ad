"""The config keys that docs/original_api.md puts beside the original's, all in one run of the training script."""

import re
from pathlib import Path

import pytest

from nemo_ds2_adapters import AdapterManager

PAGE = Path(__file__).parents[2] / "docs" / "original_api.md"


@pytest.mark.slow
def test_a_person_is_adapted_with_the_originals_settings(run_script, base_nemo: Path, manifest: Path) -> None:
    table = PAGE.read_text(encoding="utf-8").partition("train_asr_adapter.py`:")[2].partition("\n\nThe first")[0]
    overrides = [code for row in table.splitlines()[3:] for code in re.findall(r"`([^`]+)`", row.split(" | ")[1])]
    assert len(overrides) == 18
    finished = run_script(
        "asr_adapters/train_asr_adapter.py",
        f"model.nemo_model={base_nemo}",
        f"model.train_ds.manifest_filepath={manifest}",
        "model.adapter.folds=0",  # the recordings are noise: nothing would be better than the base
        *overrides,
    )
    assert finished.returncode == 0, finished.stderr
    (path,) = (base_nemo.parent / "adapters").rglob("user_john_adapter.pt")
    assert AdapterManager.get_adapter_info(path) == {
        "name": "user_john",
        "input_dim": 8,
        "hidden_dims": [512, 256],
        "output_dim": 29,
    }
