"""A checkpoint of another toolkit: weights and settings, read without that toolkit and executing nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nemo_ds2_adapters.convert.old_format import read_old_format
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.safe_pickle.archive import OLD_FORMAT, open_archive
from nemo_ds2_adapters.formats.safe_pickle.unpickle import ClassName, Container, Names, unpickle

NAMES = Names(
    "checkpoint of DeepSpeech2",
    types=(
        *(f"__builtin__.{name}" for name in ("Ellipsis", "str", "tuple")),
        "typing.Tuple",
        "torch.nn.modules.rnn.*",
        "pytorch_lightning.callbacks.*",
        "lightning.pytorch.callbacks.*",
    ),
    containers=(
        "argparse.Namespace",
        "deepspeech_pytorch.*",
        "kospeech.*",
        "omegaconf.*",
        "torch.nn.*",
    ),
    calls=(
        "__builtin__.set",
        "_codecs.encode",
        "_operator.getitem",
        "collections.Counter",
        "deepspeech_pytorch.*",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "pathlib.PosixPath",
        "torch.device",
        "torch.Size",
    ),
)
STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
MAX_NESTING = 10


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: weights by their original names, and everything else."""

    weights: dict[str, Tensor]
    settings: dict[str, Any]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file that `torch.save` wrote, of any version of torch.

    Raises:
        InputError: it cannot be read, is damaged or hostile, or has no state dict.
    """
    try:
        content = unwrapped(_content(Path(path)))
    except AdapterFileError as error:
        raise InputError(f"{error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, not a state dict (see docs/convert.md)")
    if weights := _weights(content):
        return Checkpoint(weights, {})
    for key in STATE_DICT_KEYS:
        if weights := _weights(unwrapped(content.get(key))):
            return Checkpoint(weights, {name: value for name, value in content.items() if name != key})
    raise InputError(f"{path}: holds no state dict, neither as a whole nor as {', '.join(STATE_DICT_KEYS)}")


def unwrapped(value: Any) -> Any:
    """The value of an OmegaConf node, an enum's member or an object with attributes; other values as they are."""
    for _ in range(MAX_NESTING):
        if isinstance(value, ClassName):
            return value.path
        if not isinstance(value, Container):
            return value
        state = value.state
        arguments = state.get("arguments", ())
        value = state.get("_content", state.get("_val", arguments[0] if len(arguments) == 1 else state))
    return None


def section(settings: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Settings below one of `names`, the first that there is; empty if there is none."""
    for name in names:
        if isinstance(value := unwrapped(settings.get(name)), dict):
            return {key: unwrapped(item) for key, item in value.items() if isinstance(key, str)}
    return {}


def _content(path: Path) -> Any:
    if path.is_file():
        with path.open("rb") as file:
            if file.read(1) == OLD_FORMAT:
                return read_old_format(path, NAMES)
    with open_archive(path) as archive:
        return unpickle(archive.structure(), archive.storage, NAMES)


def _weights(value: Any) -> dict[str, Tensor]:
    """The weights that a state dict or a whole model has, empty if it is neither."""
    if not isinstance(value, dict):
        return {}
    weights = dict(_module_weights(value)) if "_modules" in value else value
    if not all(isinstance(key, str) and isinstance(item, Tensor) for key, item in weights.items()):
        return {}
    if all(key.startswith("module.") for key in weights):  # DataParallel
        return {key.removeprefix("module."): value for key, value in weights.items()}
    return weights


def _module_weights(attributes: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Weights of a pickled `nn.Module`, of which nothing but its attributes is known."""
    for kind in ("_parameters", "_buffers", "_modules"):
        members = attributes.get(kind)
        for name, member in members.items() if isinstance(members, dict) else ():
            if kind != "_modules" and member is not None:
                yield f"{prefix}{name}", member
            elif isinstance(member := unwrapped(member), dict) and depth < MAX_NESTING:
                yield from _module_weights(member, f"{prefix}{name}.", depth + 1)
