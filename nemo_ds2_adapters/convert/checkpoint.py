"""A checkpoint of another toolkit: weights and settings, read without that toolkit and executing nothing."""

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nemo_ds2_adapters.adapters.stored import StoredTensor
from nemo_ds2_adapters.errors import AdapterFileError, InputError, naming
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
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # of the files that torch wrote before 1.6
PROTOCOL_VERSION = 1001


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: weights by their original names, and everything else."""

    weights: dict[str, Tensor]
    settings: dict[str, Any]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file that `torch.save` wrote, of any version of torch.

    Raises InputError: it cannot be read, is damaged or hostile, or has no state dict.
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
                with naming(path), mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as old:
                    return _OldFile(old).content()
    with open_archive(path) as archive:
        return unpickle(archive.structure(), archive.storage, NAMES)


def _weights(value: Any) -> dict[str, Tensor]:
    """The weights that a state dict or a whole model has, empty if it is neither."""
    if not isinstance(value, dict):
        return {}
    weights = dict(_module_weights(value)) if "_modules" in value else value
    if not all(isinstance(key, str) and isinstance(item, StoredTensor) for key, item in weights.items()):
        return {}
    prefix = "module." if all(key.startswith("module.") for key in weights) else ""  # DataParallel
    return {key.removeprefix(prefix): value.tensor() for key, value in weights.items()}


def _module_weights(attributes: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Weights of a pickled `nn.Module`, of which nothing but its attributes is known."""
    for kind in ("_parameters", "_buffers", "_modules"):
        members = attributes.get(kind)
        for name, member in members.items() if isinstance(members, dict) else ():
            if kind != "_modules" and member is not None:
                yield f"{prefix}{name}", member
            elif isinstance(member := unwrapped(member), dict) and depth < MAX_NESTING:
                yield from _module_weights(member, f"{prefix}{name}.", depth + 1)


class _OldFile:
    """What torch wrote before 1.6: pickles one after the other, then the numbers."""

    def __init__(self, file: mmap.mmap) -> None:
        self._file = file
        self._free = len(file)  # bytes that the storages may still declare
        self._storages: dict[str, bytearray] = {}

    def content(self) -> Any:
        if (self._next(), self._next()) != (MAGIC_NUMBER, PROTOCOL_VERSION):
            raise AdapterFileError("is a bare pickle, not a file that torch.save wrote")
        machine, content, keys = (self._next() for _ in range(3))
        if not isinstance(machine, dict) or not machine.get("little_endian"):
            raise AdapterFileError("was saved on a big-endian machine, which is not supported")
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise AdapterFileError("does not list its weights")
        for key in keys:
            self._fill(key)
        return content

    def _next(self) -> Any:
        return unpickle(self._file, self._reserve, NAMES)

    def _reserve(self, key: str, size: int) -> bytearray:
        """Memory for a storage whose numbers come later."""
        self._free -= size
        if self._free < 0:
            raise AdapterFileError("declares more weights than it holds")
        return self._storages.setdefault(key, bytearray(size))

    def _fill(self, key: str) -> None:
        if key not in self._storages:
            raise AdapterFileError(f"holds weights {key!r} that it does not declare")
        storage = self._storages.pop(key)
        header = self._file.read(8)
        numbers = self._file.read(len(storage))
        if len(header) < 8 or len(numbers) < len(storage):
            raise AdapterFileError(f"the weights {key!r} are cut off")
        storage[:] = numbers
        (count,) = struct.unpack("<q", header)
        if count and len(storage) % count:
            raise AdapterFileError(f"declares weights {key!r} twice, differently")
