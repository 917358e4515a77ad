"""The code of the pages on adapters works."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_ds2_adapters.adapters.attach import add_adapter

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["adapter_file.md", "life_cycle.md"])
def test_code_of_the_page(page, make_base, linear, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", 0.1 * np.random.default_rng(0).standard_normal(8000), 16000)
    names = {"model": make_base(), "other_model": make_base(), "audio": "a.wav"}
    if page == "adapter_file.md":
        add_adapter(names["model"], "user_john", linear)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)
