"""The adapter that a store keeps for a person: under the name made from the user id, which is in the metadata."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nemo_ds2_adapters.adapters.adapter import Adapter, Info
from nemo_ds2_adapters.adapters.users import adapter_name_for_user, user_hash
from nemo_ds2_adapters.errors import AdapterFileError, InputError, UserIdError


def personal(adapter: Adapter, user_id: str, metadata: Mapping[str, Any], label: str) -> Adapter:
    """An adapter as a user's own.

    Args:
        adapter: of a file or a model.
        user_id: whose it becomes.
        metadata: added to its own.
        label: of the file or model, for messages.

    Raises:
        InputError: it is another user's, or does not say for which base it was made.
    """
    if adapter.info is None:
        raise InputError(
            f"{label}: is in a format that does not say for which base an adapter was made; load it into its base "
            f"model with load_adapter, and put the model's adapter"
        )
    owner = adapter.metadata.get("user_id", user_id)
    if owner != user_id:
        raise InputError(f"{label}: is the adapter of {owner!r}, not of {user_id!r}: use copy or rename")
    return handed_over(adapter, user_id, {**adapter.metadata, **metadata})


def handed_over(adapter: Adapter, user_id: str, metadata: Mapping[str, Any]) -> Adapter:
    """A stored adapter as another user's own, with these metadata and no trace of the first user."""
    assert adapter.info is not None
    info = replace(adapter.info, metadata={**metadata, "user_id": user_id})
    return replace(adapter, name=adapter_name_for_user(user_id), info=info)


def check_owner(info: Info | None, user: str, label: str) -> None:
    """Make sure that what lies in the folder of the user with this hash is theirs.

    Raises:
        AdapterFileError: it is not; begins with `label`.
    """
    if info is None:
        raise AdapterFileError(f"{label}: does not say for which base the adapter was made")
    try:
        owner = user_hash(info.metadata.get("user_id"))  # type: ignore[arg-type]
    except UserIdError as error:
        raise AdapterFileError(f"{label}: its metadata have no proper user id") from error
    if owner != user:
        raise AdapterFileError(f"{label}: is of another user, or lies in a wrong place")
