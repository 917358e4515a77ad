"""Reading and inspecting adapter files, in this package's, NeMo's and the original's format."""

import io
import os
from typing import Any

from nemo_ds2_adapters.formats.contents import FileContents, from_dict
from nemo_ds2_adapters.formats.original import from_original, is_original
from nemo_ds2_adapters.formats.plain import plain_values
from nemo_ds2_adapters.formats.safe_pickle.archive import TorchArchive, archive_in, open_archive
from nemo_ds2_adapters.formats.safe_pickle.unpickle import Names, unpickle

FilePath = str | os.PathLike[str]

NAMES = Names(
    "adapter file",
    types=("nemo.*Config", "nemo_ds2_adapters.*Config"),  # dataclasses that adapters are configured by
    containers=(
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.nodes.AnyNode",
        "omegaconf.nodes.BooleanNode",
        "omegaconf.nodes.FloatNode",
        "omegaconf.nodes.IntegerNode",
        "omegaconf.nodes.StringNode",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
    ),
)


def inspect_adapter(path: FilePath) -> dict[str, Any]:
    """What a file holds, in plain values and without a model. The file is read and checked in full.

    Returns:
        `format` (`nemo_ds2_adapters`, `nemo` or `original`), `adapters` (by name: `module`, `type`, `parameters`,
        `config`, `shapes` of each part), and for this package's format `format_version`, `fingerprint`, `base`,
        `created`, `versions` and `metadata`.

    Raises:
        AdapterFileError: the file is damaged or hostile.
    """
    return inspect_contents(read_adapter_file(path))


def inspect_contents(contents: FileContents) -> dict[str, Any]:
    """What `inspect_adapter` says, of a file that has been read or of a model's adapters."""
    adapters = {
        adapter.name: {
            "module": adapter.prefix,
            "type": adapter.config["_target_"],
            "parameters": adapter.parameters,
            "config": adapter.config,
            "shapes": [{key: list(value.shape) for key, value in state.items()} for state in adapter.states],
        }
        for adapter in contents.adapters.values()
    }
    about = {key: value for key, value in contents.info.items() if key not in ("paths", "parameters")}
    return {"format": contents.format, "adapters": adapters, **about}


def read_adapter_file(path: FilePath) -> FileContents:
    """Read and check a file in any of the three formats.

    Raises:
        AdapterFileError: the file is damaged or hostile.
    """
    with open_archive(path) as archive:
        return _contents(archive)


def read_adapter_bytes(data: bytes, label: str) -> FileContents:
    """Read and check what a file holds, in any of the three formats.

    Raises:
        AdapterFileError: the bytes are damaged or hostile; begins with `label`.
    """
    with archive_in(io.BytesIO(data), label) as archive:
        return _contents(archive)


def read_values(path: FilePath) -> Any:
    """The plain values and tensors of a file that `torch.save` wrote. Nothing in it is executed.

    Raises:
        AdapterFileError: the file is damaged or hostile.
    """
    with open_archive(path) as archive:
        return _values(archive)


def _values(archive: TorchArchive) -> Any:
    structure = archive.structure()
    return plain_values(
        unpickle(structure, archive.storage, NAMES), limit=len(structure)
    )  # a value takes a byte at least


def _contents(archive: TorchArchive) -> FileContents:
    content = _values(archive)
    return from_original(content) if is_original(content) else from_dict(content)
