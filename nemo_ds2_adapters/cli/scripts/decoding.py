"""What the section `decoding` of a command's config asks for."""

from dataclasses import fields
from pathlib import Path

from omegaconf import DictConfig

from nemo_ds2_adapters.cli.words import read_words
from nemo_ds2_adapters.decoding.search import SearchSettings


def search_settings(cfg: DictConfig) -> SearchSettings:
    """The language model and all weights. Raises InputError: one is out of range."""
    return SearchSettings(**{field.name: cfg.decoding[field.name] for field in fields(SearchSettings)})


def words_for_all(cfg: DictConfig, count: int) -> list[tuple[str, ...]] | None:
    """The words of the file for each of so many utterances; None: those of the store, if there is one."""
    if cfg.decoding.words is None:
        return None
    return [read_words(Path(cfg.decoding.words))] * count
