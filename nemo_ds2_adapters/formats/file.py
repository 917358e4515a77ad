"""Saving and loading adapter files."""

import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from nemo.core import ModelPT
from omegaconf import OmegaConf

from nemo_ds2_adapters.adapters.attach import undone_on_error
from nemo_ds2_adapters.adapters.blocks import adapter_names, adapter_parts, adapters_cfg, existing_name, module_prefix
from nemo_ds2_adapters.adapters.fingerprint import describe_base, difference, fingerprint
from nemo_ds2_adapters.adapters.fitting import attach_stored, check_config
from nemo_ds2_adapters.adapters.names import check_adapter_name, illegal_reason, missing_adapter
from nemo_ds2_adapters.errors import AdapterFileError, AdapterNameError, BaseMismatchError, InputError
from nemo_ds2_adapters.formats.atomic import write_atomically
from nemo_ds2_adapters.formats.contents import ORIGINAL, OURS, FileContents, StoredAdapter, check_finite, to_dict
from nemo_ds2_adapters.formats.original import to_original
from nemo_ds2_adapters.formats.plain import plain_values
from nemo_ds2_adapters.formats.reading import FilePath, read_adapter_file
from nemo_ds2_adapters.version import __version__

MAX_REASONS = 20  # lines of an error message


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
    _write(to_dict(describe_adapters(model, name, metadata)), path)


def describe_adapters(
    model: ModelPT, name: str | Sequence[str] | None, metadata: Mapping[str, Any] | None = None
) -> FileContents:
    """What `save_adapter` writes: attached adapters, their base, and metadata.

    Raises:
        AdapterNameError: an adapter does not exist, or there is none.
        InputError: the metadata are not plain values.
        AdapterFileError: a weight is not finite.
    """
    contents = take_adapters(model, name)
    try:
        plain_metadata = plain_values(dict(metadata or {}))
    except AdapterFileError as error:
        raise InputError(f"the metadata cannot be written: {error}") from error
    contents.info = {
        "fingerprint": fingerprint(model),
        "base": describe_base(model),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "nemo_ds2_adapters": __version__,
            "nemo_toolkit": version("nemo_toolkit"),
            "torch": version("torch"),
        },
        "paths": {adapter.name: adapter.paths for adapter in contents.adapters.values()},
        "parameters": {adapter.name: adapter.parameters for adapter in contents.adapters.values()},
        "metadata": plain_metadata,
    }
    return contents


def save_original_adapter(model: ModelPT, name: str, path: FilePath) -> None:
    """Write a head adapter in the five-key format of the original per-user adapter for DeepSpeech2.

    Raises:
        AdapterNameError: the adapter does not exist.
        InputError: it is not a head that replaces the output layer.
        AdapterFileError: a weight is not finite, or the file cannot be written.
    """
    (adapter,) = take_adapters(model, name).adapters.values()
    _write(to_original(adapter), path)


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
    return attach_contents(model, read_adapter_file(path), path, name, as_name, strict_base)


def attach_contents(
    model: ModelPT,
    contents: FileContents,
    path: FilePath,
    name: str | Sequence[str] | None = None,
    as_name: str | None = None,
    strict_base: bool = True,
) -> list[str]:
    """What `load_adapter` does with a file that has been read; `path` is for the messages."""
    chosen = _choose(contents, name, path)
    if as_name is not None and len(chosen) != 1:
        raise InputError(f"as_name={as_name!r} is for one adapter, {path} holds {len(chosen)}: choose one with name=")
    if strict_base:
        _check_base(model, contents, path)
    with ExitStack() as undo:
        for adapter in chosen:
            target = as_name or adapter.name
            if as_name is None and (reason := illegal_reason(target)):
                raise AdapterFileError(f"{path}: adapter name {target!r} {reason}: load it with as_name=")
            check_adapter_name(target, adapter_names(model))
            undo.enter_context(undone_on_error(model, target))
            try:
                if contents.format != ORIGINAL:  # whose config is ours
                    check_config(adapter)
                attach_stored(model, adapter, target)
            except AdapterFileError as error:
                raise AdapterFileError(f"{path}: {error}") from error
    return [as_name or adapter.name for adapter in chosen]


def take_adapters(model: ModelPT, name: str | Sequence[str] | None) -> FileContents:
    """Copies of attached adapters on the CPU.

    Raises:
        AdapterNameError: an adapter does not exist, or there is none.
        InputError: an adapter has no modules.
        AdapterFileError: a weight is not finite.
    """
    names = [name] if isinstance(name, str) else adapter_names(model) if name is None else list(name)
    if not names:
        raise AdapterNameError("there is no adapter to save: the model has none, or no name was given")
    adapters = {}
    for plain in (existing_name(model, each) for each in names):
        config: Any = OmegaConf.to_container(adapters_cfg(model)[plain], resolve=True)
        parts = adapter_parts(model, plain)
        if not parts:
            raise InputError(f"adapter {plain!r} has a config but no modules, its module was replaced: delete it")
        states = [{k: v.detach().cpu().clone() for k, v in part.state_dict().items()} for _, part in parts]
        check_finite(plain, states)
        config["enabled"] = True
        adapters[plain] = StoredAdapter(plain, module_prefix(model, plain), config, states, [p for p, _ in parts])
    return FileContents(OURS, adapters)


def file_bytes(content: dict[str, Any]) -> bytes:
    """The bytes of a file with this content."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _write(content: dict[str, Any], path: FilePath) -> None:
    write_atomically(path, file_bytes(content))


def _choose(contents: FileContents, name: str | Sequence[str] | None, path: FilePath) -> list[StoredAdapter]:
    if name is None:
        return list(contents.adapters.values())
    return [find_adapter(contents, each, path) for each in ([name] if isinstance(name, str) else name)]


def find_adapter(contents: FileContents, name: str, path: FilePath) -> StoredAdapter:
    """One of a file's adapters, by its name with or without module prefix; `path` is for the message.

    Raises:
        AdapterNameError: there is none of that name.
    """
    adapters = contents.adapters.values()
    for adapter in adapters:
        if name in (adapter.name, adapter.full_name):
            return adapter
    raise AdapterNameError(str(missing_adapter(name, [a.full_name for a in adapters])).replace("the model", str(path)))


def _check_base(model: ModelPT, contents: FileContents, path: FilePath) -> None:
    if contents.format != OURS:
        return
    theirs, ours = contents.info["fingerprint"], fingerprint(model)
    if theirs == ours:
        return
    lines = difference(contents.info["base"], describe_base(model))
    reasons = lines or ["the same settings and vocabulary, but other weights: the base was trained further, or anew"]
    raise BaseMismatchError(
        f"{path}: was made for another base model\n"
        f"  fingerprint in the file:  {theirs}\n"
        f"  fingerprint of the model: {ours}\n"
        + "".join(f"  {line}\n" for line in reasons[:MAX_REASONS])
        + "load the base it was made for, or pass strict_base=False if it may serve another"
    )
