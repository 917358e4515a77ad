"""The configs that are shipped with the package, read without Hydra."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONFIGS = Path(__file__).parent / "conf"


def shipped_config(name: str) -> DictConfig:
    """A config as Hydra composes it, without the section `hydra`.

    Args:
        name: with its folder, `asr_adapters/asr_adaptation`.
    """
    from omegaconf import DictConfig, OmegaConf

    folder = name.rpartition("/")[0]
    own = OmegaConf.load(CONFIGS / f"{name}.yaml")
    assert isinstance(own, DictConfig)
    own.pop("hydra", None)
    parts: list[Any] = []
    for part in own.pop("defaults", ["_self_"]):
        if isinstance(part, str):
            parts.append(own if part == "_self_" else shipped_config(f"{folder}/{part}"))
        elif not any(group.startswith("override ") for group in part):  # which is of Hydra's own, /hydra/sweeper
            parts += [{group: shipped_config(f"{folder}/{group}/{choice}")} for group, choice in part.items()]
    return DictConfig(OmegaConf.merge(*parts))


def choices(section: str) -> list[str]:
    """What a section of a config can be chosen to be, as in `cluster=ray`; none if it is set key by key only."""
    return sorted({path.stem for path in CONFIGS.glob(f"*/{section}/*.yaml")})
