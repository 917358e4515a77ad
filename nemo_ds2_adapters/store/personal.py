"""The file a store keeps for a person: one adapter, under the name made from the user id, which is in the metadata."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nemo_ds2_adapters.adapters.users import adapter_name_for_user, user_hash
from nemo_ds2_adapters.errors import AdapterFileError, InputError, UserIdError
from nemo_ds2_adapters.formats.old_names import (
    OURS,
    FileContents,
    StoredAdapter,
    find_adapter,
    read_adapter_bytes,
    with_adapters,
)
from nemo_ds2_adapters.formats.plain import plain_values


def personal(
    contents: FileContents, user_id: str, metadata: Mapping[str, Any], label: str, name: str | None = None
) -> FileContents:
    """One adapter as a user's own.

    Args:
        contents: of a file or a model.
        user_id: whose it becomes.
        metadata: added to what the file says.
        label: of the file or model, for messages.
        name: which adapter; None if there is only one.

    Raises:
        AdapterNameError: there is no adapter of that name.
        InputError: several adapters and no name, another user's file, a file that does not say for which base it
            was made, or metadata that are not plain values.
    """
    adapter = _one(contents, name, label)
    if contents.format != OURS:
        raise InputError(
            f"{label}: a file in the format {contents.format!r} does not say for which base it was made; load it into "
            f"its base model with load_adapter, and put the model's adapter"
        )
    owner = contents.info["metadata"].get("user_id", user_id)
    if owner != user_id:
        raise InputError(f"{label}: is the adapter of {owner!r}, not of {user_id!r}: use copy or rename")
    try:
        added = plain_values(dict(metadata))
    except AdapterFileError as error:
        raise InputError(f"the metadata cannot be stored: {error}") from error
    return _of_user(contents, adapter, {**contents.info["metadata"], **added, "user_id": user_id})


def handed_over(contents: FileContents, user_id: str, metadata: Mapping[str, Any]) -> FileContents:
    """A stored adapter as another user's own, with these metadata and no trace of the first user."""
    (adapter,) = contents.adapters.values()
    return _of_user(contents, adapter, {**metadata, "user_id": user_id})


def read_personal(data: bytes, user: str, label: str) -> FileContents:
    """Read and check what a store has for the user with this hash.

    Raises:
        AdapterFileError: damaged, or not this user's; begins with `label`.
    """
    contents = read_adapter_bytes(data, label)
    if contents.format != OURS or len(contents.adapters) != 1:
        raise AdapterFileError(f"{label}: holds not one adapter in the format of nemo_ds2_adapters")
    try:
        owner = user_hash(contents.info["metadata"].get("user_id"))
    except UserIdError as error:
        raise AdapterFileError(f"{label}: its metadata have no proper user id") from error
    if owner != user:
        raise AdapterFileError(f"{label}: is of another user, or lies in a wrong place")
    return contents


def _one(contents: FileContents, name: str | None, label: str) -> StoredAdapter:
    if name is not None:
        return find_adapter(contents, name, label)
    if len(contents.adapters) != 1:
        raise InputError(f"{label}: holds {len(contents.adapters)} adapters: choose one with name=")
    return next(iter(contents.adapters.values()))


def _of_user(contents: FileContents, adapter: StoredAdapter, metadata: dict[str, Any]) -> FileContents:
    result = with_adapters(contents, [replace(adapter, name=adapter_name_for_user(metadata["user_id"]))])
    result.info["metadata"] = metadata
    return result
