"""Which adapter a command line means: one by its name, or a user's by the user id."""

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_ds2_adapters.adapters.users import adapter_name_for_user, check_user_id, hydra_override
from nemo_ds2_adapters.errors import InputError

SECTION = "model.adapter"
NAME_KEY, USER_KEY = f"{SECTION}.adapter_name", f"{SECTION}.user_id"


@dataclass(frozen=True)
class ChosenAdapter:
    """`name` as the model knows it, None for the base; `user_id` if a person was named."""

    name: str | None
    user_id: str | None = None

    @property
    def shown(self) -> str:
        """What a person is shown, on one line."""
        if self.user_id is not None:
            return self.user_id if self.user_id.isprintable() else repr(self.user_id)
        return self.name or "base"

    @property
    def option(self) -> str:
        """What was said on the command line, for messages."""
        return f"{NAME_KEY if self.user_id is None else USER_KEY}={self.shown}"


def chosen_adapter(cfg: DictConfig, base_allowed: bool = False) -> ChosenAdapter:
    """The adapter that `adapter_name` or `user_id` names in the section `model.adapter`; `???` is what was not given.

    Null as `adapter_name` means the base, if `base_allowed`. Raises InputError: not exactly one of the two was given,
    or it is not text; shows how to quote it.
    """
    given = [key for key in ("adapter_name", "user_id") if not OmegaConf.is_missing(cfg, key)]
    if len(given) != 1:
        state = "both are" if given else "none is"
        raise InputError(f"set one of {NAME_KEY} and {USER_KEY}, {state} set")
    value = read_text(cfg, given[0])
    if given == ["user_id"]:
        return ChosenAdapter(adapter_name_for_user(check_user_id(value, USER_KEY)), value)
    if not isinstance(value, str) and not (value is None and base_allowed):
        text = "null" if value is None else str(value)
        raise InputError(f"{NAME_KEY}={text} is not text; write {hydra_override(NAME_KEY, text)}")
    return ChosenAdapter(value)


def read_text(cfg: DictConfig, key: str) -> Any:
    """A value that may hold any text; an InputError shows how to quote what was taken for an interpolation."""
    try:
        return cfg[key]
    except OmegaConfBaseException as error:
        raw = OmegaConf.to_container(cfg, resolve=False)[key]  # type: ignore[index,call-overload]
        key = f"{SECTION}.{key}"
        raise InputError(
            f"{key}: {raw} refers to another key; for this text write {hydra_override(key, raw)}"
        ) from error
