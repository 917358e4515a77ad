"""From what a person names to what has adapters in it."""

from pathlib import Path

from nemo_ds2_adapters.cli.source import Source
from nemo_ds2_adapters.errors import InputError


def open_source(text: str, create: bool = False) -> Source:
    """The `.nemo`, `.pt` or store at a path or URL. What one needs is imported when it is needed: `.nemo`, NeMo.

    Args:
        text: the path or URL.
        create: make a store if there is none.

    Raises:
        InputError: it is none of these.
    """
    path = Path(text)
    if not text:
        raise InputError("the SOURCE is empty: give a .nemo, a .pt, or the directory of a store")
    if create or "://" in text or path.is_dir():
        from nemo_ds2_adapters.cli.store_source import StoreSource
        from nemo_ds2_adapters.store.store import AdapterStore

        return StoreSource(AdapterStore(text, create=create))
    if not path.exists():
        raise InputError(f"{text}: no such file or store")
    if path.suffix == ".nemo":
        from nemo_ds2_adapters.cli.model_source import ModelSource

        return ModelSource(path)
    if path.suffix == ".pt":
        from nemo_ds2_adapters.cli.file_source import FileSource

        return FileSource(path)
    raise InputError(f"{text}: expected a .nemo, a .pt, or the directory of a store")
