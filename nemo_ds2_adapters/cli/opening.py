"""From what a person names to what has adapters in it."""

from pathlib import Path

from nemo_ds2_adapters.cli.file_source import FileSource
from nemo_ds2_adapters.cli.model_source import ModelSource
from nemo_ds2_adapters.cli.source import Source
from nemo_ds2_adapters.cli.store_source import StoreSource
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.store.store import AdapterStore


def open_source(text: str) -> Source:
    """The `.nemo`, `.pt` or store at a path or URL.

    Raises:
        InputError: it is none of these.
    """
    path = Path(text)
    if not text:
        raise InputError("the SOURCE is empty: give a .nemo, a .pt, or the directory of a store")
    if "://" in text or path.is_dir():
        return StoreSource(AdapterStore(text, create=False))
    if not path.exists():
        raise InputError(f"{text}: no such file or store")
    if path.suffix == ".nemo":
        return ModelSource(path)
    if path.suffix == ".pt":
        return FileSource(path)
    raise InputError(f"{text}: expected a .nemo, a .pt, or the directory of a store")
