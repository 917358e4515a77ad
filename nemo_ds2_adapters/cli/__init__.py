"""The command line, `ds2-adapters`."""

import sys
from typing import NoReturn

import typer

from nemo_ds2_adapters.cli.app import app
from nemo_ds2_adapters.cli.output import quiet, say
from nemo_ds2_adapters.errors import NemoDs2Error
from nemo_ds2_adapters.formats.scratch import own_temporary_folder

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and end the program; exit code 1 and one line for wrong input, 2 and one line for a wrong call."""
    quiet("ERROR")
    try:
        with own_temporary_folder():
            sys.exit(app(args=arguments, prog_name="ds2-adapters", standalone_mode=False) or 0)
    except typer.TyperException as error:
        _fail(f"{error.format_message()} (see ds2-adapters --help)", error.exit_code)
    except typer.Abort:
        _fail("stopped, nothing was changed", 1)
    except (NemoDs2Error, OSError) as error:
        _fail(str(error), 1)


def _fail(message: str, code: int) -> NoReturn:
    say(f"error: {message}", err=True)
    sys.exit(code)
