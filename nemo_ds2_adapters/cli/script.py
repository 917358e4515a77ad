"""What every script does around its work: accept the command line, check its keys, say errors in one line."""

import difflib
import functools
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from nemo_ds2_adapters.adapters.chosen import NAME_KEY, SECTION, USER_KEY
from nemo_ds2_adapters.adapters.users import hydra_override
from nemo_ds2_adapters.errors import InputError, NemoDs2Error

Task = Callable[[DictConfig], Any]

CONFIGS = Path(__file__).parents[1] / "conf"

# Sections whose keys belong to NeMo, Lightning or Hydra: anything goes, they check it themselves.
OPEN_SECTIONS = (
    "exp_manager",
    "hydra",
    "model.adapter.global_cfg",
    "model.optim",
    "model.test_ds",
    "model.train_ds",
    "model.validation_ds",
    "trainer",
)
# Keys that hold any text. Hydra parses it, and would take some for a number, a list or an error.
TEXT_KEYS = (NAME_KEY, USER_KEY, f"{SECTION}.init_from")


def open_overrides(arguments: list[str]) -> list[str]:
    """Let a command line set keys that the config does not list, so that `check_keys` can speak about them.

    Hydra wants a `+` before such a key and answers its absence with a page of its own. It does the same to a user id
    that it cannot parse, so that is looked at here.

    Raises:
        SystemExit: a text would not arrive as it was typed; one line shows how to quote it.
    """
    several = bool({"-m", "--multirun"} & set(arguments))
    for argument in arguments:
        key, _, text = argument.lstrip("+").partition("=")
        if key in TEXT_KEYS and (reason := _misread(argument, text, several)):
            sys.exit(f"error: {key}={text} {reason}")
    return [f"++{a}" if "=" in a and a[0].isalpha() and not a.startswith("hydra") else a for a in arguments]


def _misread(argument: str, text: str, several: bool) -> str | None:
    """What is wrong with the override of a key that holds a text, None if nothing is; `several` for Hydra's sweeps."""
    advice = f"is not taken as it stands; write {hydra_override(argument.partition('=')[0].lstrip('+'), text)}"
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return advice
    if override.is_sweep_override():
        return None if several else advice
    value = override.value()
    if value == "???":
        return "cannot be said: it stands for a missing value"
    quoted = text.strip()[:1] in ("'", '"')
    return advice if isinstance(value, str) and value != text and not quoted else None


def hydra_command(*configs: str, add_keys: bool = True) -> Callable[[Task], Callable[..., Any]]:
    """Make a program of a function that takes a config: with NeMo's Hydra runner, and configs of this package.

    The program takes its overrides from the command line, or a composed config as its only argument. It ends with one
    line, and a non-zero exit code, when its input is at fault.

    Args:
        configs: names as in `conf/`: the one that is used unless `--config-name` says another, then those others.
        add_keys: False refuses keys that are not in the config as Hydra does, which a sweep needs.
    """
    folder, _, name = configs[0].rpartition("/")
    files = [CONFIGS / f"{config}.yaml" for config in configs]

    def decorate(task: Task) -> Callable[..., Any]:
        @functools.wraps(task)
        def checked(cfg: DictConfig) -> Any:
            check_keys(cfg, *files)
            quiet(cfg.log_level)
            return task(cfg)

        @functools.wraps(task)
        def main(cfg: DictConfig | None = None) -> Any:
            from nemo.core.config import hydra_runner

            if cfg is None and add_keys:
                sys.argv[1:] = open_overrides(sys.argv[1:])
            return hydra_runner(str(CONFIGS / folder), name)(one_line_errors(checked))(cfg)

        return main

    return decorate


def one_line_errors(task: Task) -> Task:
    """End a script with one line, and a non-zero exit code, when its input is at fault."""

    @functools.wraps(task)
    def run(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except NemoDs2Error as error:
            sys.exit(f"error: {error}")

    return run


def quiet(level: str) -> None:
    """Keep NeMo, Lightning and Python warnings below `level` off the screen.

    Raises:
        InputError: `level` is not the name of a logging level.
    """
    number = logging.getLevelName(level)
    if not isinstance(number, int):
        raise InputError(f"log_level={level}: expected DEBUG, INFO, WARNING or ERROR")
    logging.disable(number - 1)  # for all loggers: NeMo's experiment manager sets the levels of some anew
    if number > logging.INFO:
        warnings.filterwarnings("ignore")


def check_keys(cfg: DictConfig, *config_files: Path, open_sections: tuple[str, ...] = OPEN_SECTIONS) -> None:
    """Refuse keys that the shipped configs do not have.

    Args:
        cfg: what the script was given.
        config_files: the configs shipped with the script, which list every key.
        open_sections: dotted keys below which anything goes.

    Raises:
        InputError: names all unknown keys at once, each with the nearest known one.
    """
    known = sorted({key for file in config_files for key in _keys(DictConfig(OmegaConf.load(file)), open_sections)})
    unknown = [key for key in _keys(cfg, open_sections) if key not in known]
    if unknown:
        raise InputError("; ".join(_unknown(key, known) for key in unknown))


def _keys(cfg: DictConfig, open_sections: tuple[str, ...], prefix: str = "") -> Iterator[str]:
    """Dotted keys of all leaves, not entering open sections."""
    for name in map(str, cfg):
        key = prefix + name
        if key in open_sections:
            continue
        if not OmegaConf.is_missing(cfg, name) and isinstance(cfg._get_node(name), DictConfig):
            yield from _keys(cfg[name] or OmegaConf.create({}), open_sections, f"{key}.")
        else:
            yield key


def _unknown(key: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
    return f"unknown config key {key}, the nearest known one is {nearest}"
