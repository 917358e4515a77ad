"""Numbers that a person gives, checked where they are used."""

import math
from typing import Any

from nemo_ds2_adapters.errors import InputError


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, which true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse (InputError, which shows the name) what is not a whole number of at least `least`."""
    if not is_whole(value) or value < least:
        raise InputError(f"{name}={value}: expected a whole number of at least {least}")


def check_number(name: str, value: Any) -> None:
    """Refuse (InputError, which shows the name) what is not a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError(f"{name}={value}: expected a number of at least 0")
