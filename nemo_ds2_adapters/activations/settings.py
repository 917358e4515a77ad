"""How activations are kept, as settings say."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch

from nemo_ds2_adapters.activations.cache import DEFAULT_MEMORY, PrefixCache
from nemo_ds2_adapters.errors import InputError

MODES = ("auto", "off", "required")
PRECISIONS = {None: None, "16": torch.float16, "bf16": torch.bfloat16, "32": torch.float32}


@dataclass(frozen=True)
class CacheSettings:
    """Whether and how activations are kept.

    Raises:
        InputError: a value is not what it must be; names it by its key in conf/asr_adapters/asr_adaptation.yaml.
    """

    mode: str = "auto"  # auto: whenever that is exact; off: never; required: an error if it is not exact
    folder: str | None = None  # for later runs
    memory: float = DEFAULT_MEMORY  # GB; what does not fit goes to files
    precision: str | None = None  # None: the model's, which is exact

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"model.adapter.cache={self.mode}: expected one of {', '.join(MODES)}")
        if self.precision not in PRECISIONS:
            known = ", ".join(name for name in PRECISIONS if name)
            raise InputError(f"model.adapter.cache_precision={self.precision}: expected null or one of {known}")
        if not _is_size(self.memory):
            raise InputError(f"model.adapter.cache_memory={self.memory}: expected GB, at least 0")

    @classmethod
    def of(cls, adapter: Mapping[str, Any]) -> Self:
        """Of the config's section `model.adapter`, as plain values.

        Raises:
            InputError: a value is wrong.
        """
        mode, precision = adapter["cache"], adapter["cache_precision"]
        return cls(
            "off" if mode is False else mode,  # YAML takes a bare `off` for false
            adapter["cache_dir"],
            adapter["cache_memory"],
            None if precision is None else str(precision),
        )

    def open(self) -> PrefixCache:
        """A cache of this kind.

        Raises:
            InputError: its folder cannot be made.
        """
        return PrefixCache(self.folder, self.memory, PRECISIONS[self.precision])


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
