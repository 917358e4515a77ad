"""The code of the page on streams works."""

import re
from pathlib import Path

import pytest

from nemo_ds2_adapters import AdapterStore

PAGE = Path(__file__).parents[2] / "docs" / "streaming.md"


def test_code_of_the_page(model, attach, speech, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = AdapterStore(tmp_path / "adapters")
    store.put("john.doe@example.com", model, *attach(model, "all"))
    names = {"model": model, "store": store, "chunks": speech(2.0).split(1280)}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    assert len(capsys.readouterr().out.splitlines()) >= len(names["chunks"])
    assert names["hypothesis"].text and names["hypothesis"].word_confidence
