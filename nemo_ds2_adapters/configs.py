"""The configs that are shipped with the package, read without Hydra."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
    parts = [own if part == "_self_" else shipped_config(f"{folder}/{part}") for part in _parts(own)]
    return DictConfig(OmegaConf.merge(*parts))


def _parts(config: DictConfig) -> list[str]:
    """The config's defaults, in their order, but for Hydra's own (`override /hydra/sweeper`)."""
    return [part for part in config.pop("defaults", ["_self_"]) if isinstance(part, str)]
