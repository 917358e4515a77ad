"""The code of the page on training works."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_code_of_the_page(model, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "john.json").write_text(manifest.read_text())
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "training.md").read_text("utf-8"), re.DOTALL)
    exec(compile(block, "training.md", "exec"), {"model": model})
    said = capsys.readouterr().out
    assert "frozen part: computed once, 4 utterances" in said and "adapters.pt" in said
