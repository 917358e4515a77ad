"""Saving and loading adapter files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.errors import InputError, naming
from nemo_ds2_adapters.formats.atomic import sweep, write_atomically
from nemo_ds2_adapters.formats.nemo import to_nemo, to_pt
from nemo_ds2_adapters.formats.original import to_original
from nemo_ds2_adapters.formats.reading import NEMO, OURS, FilePath, find_adapter, read_adapters
from nemo_ds2_adapters.formats.safe_pickle.saving import saved

if TYPE_CHECKING:
    from nemo.core import ModelPT


def save_adapter(
    model: ModelPT, name: str | Sequence[str] | None, path: FilePath, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write adapters to a file, atomically; see docs/adapter_file.md for what is in it.

    Args:
        model: where they are attached.
        name: one name, several, or None for all.
        path: the file, by custom `*.pt`.
        metadata: plain values about the adapter: user id, hours of speech, word error rates, language, ...

    Raises:
        AdapterNameError: an adapter does not exist, or there is none.
        InputError: the metadata are not plain values.
        AdapterFileError: a weight is not finite, or the file cannot be written; an existing file is untouched.
    """
    from nemo_ds2_adapters.adapters.attached import attached_adapters
    from nemo_ds2_adapters.adapters.blocks import list_adapters

    names = [name] if isinstance(name, str) else list_adapters(model) if name is None else name
    write_adapters(attached_adapters(model, names, metadata), path)


def load_adapter(
    model: ModelPT,
    path: FilePath,
    name: str | Sequence[str] | None = None,
    as_name: str | None = None,
    strict_base: bool = True,
) -> list[str]:
    """Attach adapters of a file in this package's, NeMo's or the original's format. Nothing in it is executed.

    Args:
        model: where to attach them; on any error it is as it was.
        path: the file.
        name: which of its adapters, one or several; None for all.
        as_name: another name for the one adapter.
        strict_base: refuse an adapter that was made for another base. NeMo's and the original's files do not say
            for which base they were made.

    Returns:
        names under which the adapters are attached.

    Raises:
        AdapterFileError: the file is damaged, hostile, or does not fit the model.
        BaseMismatchError: the adapter was made for another base.
        AdapterNameError: the file has no such adapter, or the model has one of that name.
    """
    from nemo_ds2_adapters.adapters.attach import attach, undone_on_error

    adapters = read_adapters(path)
    names = [name] if isinstance(name, str) else adapters if name is None else name
    chosen = [find_adapter(adapters, each, path) for each in names]
    if as_name is not None and len(chosen) != 1:
        raise InputError(f"as_name={as_name!r} is for one adapter, {path} holds {len(chosen)}: choose one with name=")
    with naming(path), undone_on_error(model):
        return [attach(model, adapter, as_name, strict_base) for adapter in chosen]


def write_adapters(adapters: Iterable[Adapter], path: FilePath, file_format: str = OURS) -> None:
    """Write adapters, at least one, to a file, atomically.

    Raises what `adapter_bytes` does; AdapterFileError: the file cannot be written, an existing one is untouched.
    """
    with naming(path):
        content = adapter_bytes(adapters, file_format)
    sweep(Path(path).parent)
    write_atomically(path, content)


def adapter_bytes(adapters: Iterable[Adapter], file_format: str = OURS) -> bytes:
    """The file that holds adapters, at least one, in the format `OURS`, `NEMO` or `ORIGINAL`.

    Raises:
        InputError: the format cannot hold them: this package's needs to know for which base they were made, the
            original's holds one head; or what they say is not plain values.
        AdapterFileError: their weights are of an unusual type.
    """
    adapters = list(adapters)
    if file_format == OURS:
        return saved(to_pt(adapters))
    if file_format == NEMO:
        return saved(to_nemo(adapters))
    if len(adapters) != 1:
        raise InputError(f"the original's format holds one adapter, not {len(adapters)}")
    return saved(to_original(adapters[0]))
