"""Reading and inspecting adapter files, in this package's, NeMo's and the original's format."""

import io
import os
from collections.abc import Mapping
from typing import Any

from nemo_ds2_adapters.adapters.adapter import Adapter, loaded
from nemo_ds2_adapters.adapters.names import missing_adapter
from nemo_ds2_adapters.adapters.stored import StoredTensor
from nemo_ds2_adapters.errors import AdapterFileError
from nemo_ds2_adapters.formats.nemo import FORMAT_VERSION, INFO_KEY, from_nemo, from_pt
from nemo_ds2_adapters.formats.original import from_original, is_original
from nemo_ds2_adapters.formats.plain import plain_values
from nemo_ds2_adapters.formats.safe_pickle.archive import TorchArchive, archive_in, open_archive
from nemo_ds2_adapters.formats.safe_pickle.unpickle import Names, unpickle

FilePath = str | os.PathLike[str]

OURS, NEMO, ORIGINAL = "nemo_ds2_adapters", "nemo", "original"  # the formats

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


def read_adapters(path: FilePath) -> dict[str, Adapter]:
    """The adapters of a file in any of the three formats, by name, checked in full (AdapterFileError)."""
    return {name: loaded(adapter) for name, adapter in look_into(path)[1].items()}


def read_adapter(path: FilePath) -> Adapter:
    """The only adapter of a file in any of the three formats. Raises AdapterFileError, also if it holds several."""
    adapters = read_adapters(path)
    if len(adapters) != 1:
        raise AdapterFileError(f"{path}: holds {len(adapters)} adapters, {', '.join(adapters)}: expected one")
    return next(iter(adapters.values()))


def look_into(path: FilePath) -> tuple[str, dict[str, Adapter]]:
    """The format of a file, `OURS`, `NEMO` or `ORIGINAL`, and what `read_adapters` gives, but without PyTorch.

    The adapters have `StoredTensor`s for weights, see `loaded`.
    """
    with open_archive(path) as archive:
        return _adapters(archive)


def look_into_bytes(data: bytes, label: str) -> dict[str, Adapter]:
    """As `look_into`, of what was a file; `label` names it in messages."""
    with archive_in(io.BytesIO(data), label) as archive:
        return _adapters(archive)[1]


def find_adapter(adapters: Mapping[str, Adapter], name: str, where: object) -> Adapter:
    """One of a file's adapters, by its name with or without prefix, or an AdapterNameError, which says that of
    `where`."""
    for adapter in adapters.values():
        if name in (adapter.name, adapter.full_name):
            return adapter
    raise missing_adapter(name, [adapter.full_name for adapter in adapters.values()], where)


def inspect_adapter(path: FilePath) -> dict[str, Any]:
    """What a file holds, in plain values and without a model. The file is read and checked in full.

    Returns:
        `format` (`nemo_ds2_adapters`, `nemo` or `original`), `adapters` (by name: `module`, `type`, `parameters`,
        `config`, `shapes` at each point), and for this package's format `format_version`, `fingerprint`, `base`,
        `created`, `versions` and `metadata`.

    Raises:
        AdapterFileError: the file is damaged or hostile.
    """
    file_format, adapters = look_into(path)
    info = next(iter(adapters.values())).info
    about = {"format_version": FORMAT_VERSION, **vars(info)} if info else {}
    return {"format": file_format, "adapters": {name: describe(a) for name, a in adapters.items()}, **about}


def describe(adapter: Adapter) -> dict[str, Any]:
    """What `inspect_adapter` says of one adapter."""
    return {
        "module": adapter.module,
        "type": adapter.config["_target_"],
        "parameters": adapter.parameters,
        "config": adapter.config,
        "shapes": adapter.shapes,
    }


def read_values(path: FilePath) -> Any:
    """What `torch.save` wrote, as plain values and `StoredTensor`s; nothing is executed. Raises AdapterFileError."""
    with open_archive(path) as archive:
        return _values(archive)


def _values(archive: TorchArchive) -> Any:
    structure = archive.structure()
    content = unpickle(structure, archive.storage, NAMES)
    return plain_values(content, limit=len(structure), leaves=(StoredTensor,))  # a value takes a byte at least


def _adapters(archive: TorchArchive) -> tuple[str, dict[str, Adapter]]:
    content = _values(archive)
    if not isinstance(content, dict):
        raise AdapterFileError(f"is not an adapter file: it holds a {type(content).__name__}")
    if is_original(content):
        return ORIGINAL, from_original(content)
    if INFO_KEY in content:
        return OURS, from_pt(content)
    return NEMO, from_nemo(content)
