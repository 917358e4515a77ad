"""What every Hydra command does around its work: accept the command line, check its keys, say errors in one line."""

import difflib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from nemo_ds2_adapters.adapters.chosen import NAME_KEY, SECTION, USER_KEY
from nemo_ds2_adapters.adapters.users import hydra_override
from nemo_ds2_adapters.cli.output import quiet
from nemo_ds2_adapters.configs import CONFIGS, choices, shipped_config
from nemo_ds2_adapters.data.manifest import manifest_paths
from nemo_ds2_adapters.errors import InputError, NemoDs2Error
from nemo_ds2_adapters.formats.scratch import own_temporary_folder
from nemo_ds2_adapters.text import printable

Task = Callable[[DictConfig], Any]

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
# Files and folders that commands read, beside manifests.
READ = (
    "model.nemo_model",
    "model.adapter.prior",
    "model.adapter.init_from",
    "model.adapter.init_from_store",
    "adapter_store",
    "adapter_default",
    "decoding.lm",
    "decoding.words",
    "init_from_nemo_model",
)
NULL_IS_A_VALUE = (f"{SECTION}.patience",)  # though the shipped value is a number
TYPES: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
}


def hydra_command(*configs: str) -> Callable[[Task], Callable[..., Any]]:
    """Make a program of a function that takes a config: with NeMo's Hydra runner, and configs of this package.

    The program takes its arguments, without them those of the process, or a composed config. It ends with one line,
    and a non-zero exit code, when its input is at fault.

    Args:
        configs: names as in `conf/`: the one that is used unless `--config-name` says another, then those others.
    """
    folder, _, name = configs[0].rpartition("/")

    def decorate(task: Task) -> Callable[..., Any]:
        @functools.wraps(task)
        def checked(cfg: DictConfig) -> Any:
            check_config(cfg, *map(shipped_config, configs))
            quiet(cfg.log_level)
            with own_temporary_folder():
                return task(cfg)

        @functools.wraps(task)
        def main(given: DictConfig | Sequence[str] | None = None) -> Any:
            from nemo.core.config import hydra_runner

            run = hydra_runner(str(CONFIGS / folder), name)(one_line_errors(checked))
            if isinstance(given, DictConfig):
                return run(given)
            before = sys.argv
            arguments = before[1:] if given is None else given
            sys.argv = [before[0], *open_overrides(arguments, *map(shipped_config, configs))]
            try:
                return run()
            finally:
                sys.argv = before

        return main

    return decorate


def open_overrides(arguments: Sequence[str], *configs: DictConfig) -> list[str]:
    """Let a command line set keys that not all of the configs list, so that `check_config` can speak about them.

    Hydra wants a `+` before such a key and answers its absence with a page of its own. It does the same to what it
    cannot parse, and takes a text for something else, so that is looked at here. Raises SystemExit: an override would
    not arrive as it was typed; one line says so.
    """
    several = bool({"-m", "--multirun"} & set(arguments))
    known = [_keys(config, closed=()) for config in configs]
    opened = []
    for argument in arguments:
        key, assigns, text = argument.lstrip("+").partition("=")
        if assigns and not argument.startswith("-"):
            is_section = any(isinstance(keys.get(key), dict) for keys in known)
            if reason := _misread(argument, text, several, is_section):
                sys.exit(printable(f"error: {key}={text} {reason}"))
        is_new = assigns and argument[0].isalpha() and not all(key in keys for keys in known)
        opened.append(f"++{argument}" if is_new and not argument.startswith("hydra") else argument)
    return opened


def _misread(argument: str, text: str, several: bool, is_section: bool) -> str | None:
    """What is wrong with an override, None if nothing is; `several` for Hydra's sweeps, `is_section` of its key."""
    key = argument.partition("=")[0].lstrip("+~")
    advice = f"is not taken as it stands; write {hydra_override(key, text)}"
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return advice
    if override.is_sweep_override():
        return advice if key in TEXT_KEYS and not several else None
    value = override.value()
    if is_section and (possible := choices(key)):
        return None if value in possible else f"is not known, expected one of {', '.join(possible)}"
    if is_section:
        return None if isinstance(value, dict) else f"is no section: {key} has keys of its own"
    if key not in TEXT_KEYS:
        return None
    if value == "???":
        return "cannot be said: it stands for a missing value"
    quoted = text.strip()[:1] in ("'", '"')
    return advice if isinstance(value, str) and value != text and not quoted else None


def one_line_errors(task: Task) -> Task:
    """End a program with one line, and a non-zero exit code, when its input is at fault."""

    @functools.wraps(task)
    def run(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except NemoDs2Error as error:
            sys.exit(f"error: {printable(str(error))}")
        except InstantiationException as error:  # a class of the config that refuses its arguments
            sys.exit(f"error: {printable(' '.join(str(error).splitlines()))}")
        except InterpolationResolutionError as error:  # `${...}` of another key, in a value of the command line
            sys.exit(f"error: {error.full_key}: {printable(str(error).splitlines()[0])}")

    return run


def make_folder(folder: Path, key: str) -> None:
    """Make the folder that results go to, before they are computed, or raise InputError, which names `key` and the
    reason."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{key}: cannot be written ({error.strerror})") from error


def files_read(cfg: DictConfig, *manifests: str) -> dict[str, Any]:
    """What a config says is read, by its keys: nothing of it may be written.

    Args:
        cfg: of the command.
        manifests: keys of paths of manifests; what is not set is passed over.
    """
    found = {key: OmegaConf.select(cfg, key) for key in READ}
    for key in manifests:
        if value := OmegaConf.select(cfg, key):
            found |= {f"{key}={path}": path for path in manifest_paths(value, key)}
    return found


def make_folder_of(output: Path, key: str) -> None:
    """Make the folder of a file that results go to, before they are computed.

    Raises InputError: a file cannot be written there; names `key` and the reason.
    """
    make_folder(output.parent, key)
    if output.is_dir():
        raise InputError(f"{key}: is a folder, give the path of a file")
    if not os.access(output.parent, os.W_OK):
        raise InputError(f"{key}: cannot be written (permission denied)")


def check_config(cfg: DictConfig, *shipped: DictConfig) -> None:
    """Refuse keys that the shipped configs do not have, keys that are missing, and values of another type.

    What is in one of the shipped configs is known, what is in all of them is needed. Raises InputError: names all at
    once, an unknown key with the nearest known one.
    """
    keys = _keys(cfg)
    wanted = [_keys(config) for config in shipped]
    known = {key: value for one in wanted for key, value in one.items()}
    leaves = sorted(key for key, value in known.items() if not isinstance(value, dict))
    found = []
    for key, value in keys.items():
        if key not in known:
            is_open = key in OPEN_SECTIONS or _is_inside_null(key, known)
            if not is_open and (not isinstance(value, dict) or not value):
                found.append(_unknown(key, leaves))
        elif reason := _unlike(key, value, known[key]):
            found.append(f"{key}={value}: expected {reason}")
    found += [f"{key} is missing" for key in known if key not in keys and all(key in one for one in wanted)]
    if found:
        raise InputError("; ".join(found))


def _keys(cfg: DictConfig, closed: Sequence[str] = OPEN_SECTIONS) -> dict[str, Any]:
    """Dotted keys of all sections and leaves with their values as they stand, not entering sections in `closed`."""

    def walk(section: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in section.items():
            key = f"{prefix}{name}"
            yield key, value
            if isinstance(value, dict) and key not in closed:
                yield from walk(value, f"{key}.")

    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    return dict(walk(plain, ""))


def _is_inside_null(key: str, known: Mapping[str, Any]) -> bool:
    """Whether the key stands in a section in whose place the shipped config has null, such as `model.spec_augment`."""
    return any(known.get(section, key) is None for section in accumulate(key.split("."), "{}.{}".format))


def _unlike(key: str, value: Any, shipped: Any) -> str | None:
    """What was expected in place of a value of another type than the shipped one; None if it is of that type."""
    if isinstance(shipped, dict):
        return None if isinstance(value, dict) else "a section with keys of its own"
    types, expected = TYPES.get(type(shipped), ((), ""))
    refers = isinstance(value, str) and "${" in value  # to another key, whose value is checked
    fits = not types or type(value) in types or refers or (value is None and key in NULL_IS_A_VALUE)
    return None if fits else expected


def _unknown(key: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
    return f"unknown config key {key}, the nearest known one is {nearest}"
