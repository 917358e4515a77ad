"""The code of the page on the store works, and the page on the command line names what there is."""

import re
from pathlib import Path

import pytest
import typer

from nemo_ds2_adapters.cli.app import app
from nemo_ds2_adapters.store.store import AdapterStore

DOCS = Path(__file__).parents[2] / "docs"


def test_code_of_the_page(ds2, make_base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"model": ds2, "other_model": make_base(n_layers=1), "new_base": make_base(n_layers=1, seed=1)}
    text = (DOCS / "store.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "store.md", "exec"), names)
    assert names["about"] == {"hours": 0.2, "wer_after": 0.11, "user_id": "john.doe@example.com"}
    assert capsys.readouterr().out == "john.doe@example.com needs training on the new base\n"
    assert list(names["store"].list()) == []


def test_every_call_is_in_the_table() -> None:
    text = (DOCS / "store.md").read_text(encoding="utf-8")
    calls = [name for name in dir(AdapterStore) if not name.startswith("_")]
    assert [name for name in calls if f"`{name}(" not in text and f"`{name}`" not in text] == []


def test_every_command_and_option_is_on_the_page() -> None:
    text = (DOCS / "command_line.md").read_text(encoding="utf-8")
    commands = typer.main.get_command(app).commands
    assert [name for name in commands if f"`{name} " not in text] == []
    options = {max(option.opts, key=len) for command in commands.values() for option in command.params}
    assert [name for name in options if name.startswith("--") and name != "--help" and name not in text] == []
