"""The code of the page on training works."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_code_of_the_page(
    model, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "nemo_ds2_adapters")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "john.json").write_text(manifest.read_text())
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "training.md").read_text("utf-8"), re.DOTALL)
    exec(compile(block, "training.md", "exec"), {"model": model})
    assert "frozen part: computed once, 4 utterances" in caplog.text
    assert "adapters.pt" in capsys.readouterr().out
