"""What several commands have in common."""

from pathlib import Path
from typing import Annotated

import typer

from nemo_ds2_adapters.errors import InputError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def check_new(path: Path, force: bool) -> None:
    """Refuse (InputError) to replace a file, unless `--force` was said."""
    if path.exists() and not force:
        raise InputError(f"{path}: exists already, pass --force to replace it")
