"""Starting one person's adapter from another one."""

from pathlib import Path

from nemo.collections.asr.models import ASRModel
from omegaconf import DictConfig

from nemo_ds2_adapters.adapters.attach import undone_on_error
from nemo_ds2_adapters.adapters.blocks import is_in_modules, module_prefix
from nemo_ds2_adapters.adapters.chosen import SECTION, read_text
from nemo_ds2_adapters.adapters.lifecycle import copy_adapter, list_adapters
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.file import load_adapter
from nemo_ds2_adapters.store.store import AdapterStore

KEY = f"{SECTION}.init_from"


def start_from(model: ASRModel, name: str, cfg: DictConfig) -> None:
    """Attach a copy of the adapter that `init_from` names, with its type, size and place.

    Args:
        model: where to attach it.
        name: of the copy.
        cfg: the config's section `model.adapter`. `init_from` is an adapter of the model, an adapter file, or, with
            `init_from_store`, a user id of that store.

    Raises:
        InputError: there is no such adapter, or not in the module that `adapter_module_name` says; the model is as it
            was.
        AdapterFileError: its file cannot be read, or does not fit the model.
    """
    source = read_text(cfg, "init_from")
    if not isinstance(source, str):
        raise InputError(f"{KEY}={source} is not text: name an adapter of the model, a file, or a user of the store")
    with undone_on_error(model):
        _attach(model, name, source, cfg.init_from_store)
        wanted = cfg.adapter_module_name
        if wanted and not is_in_modules(model, name, wanted):
            place = module_prefix(model, name) or model.default_adapter_module_name
            raise InputError(
                f"{SECTION}.adapter_module_name={wanted}, but {KEY}={source} sits in {place}: leave it out"
            )


def _attach(model: ASRModel, name: str, source: str, store: str | None) -> None:
    if store is not None:
        AdapterStore(store, create=False).load_into(model, source, as_name=name)
    elif source in list_adapters(model):
        copy_adapter(model, source, name)
    elif Path(source).is_file():
        load_adapter(model, source, as_name=name)
    else:
        have = ", ".join(list_adapters(model)) or "none"
        raise InputError(f"{KEY}={source}: neither an adapter of the model, which has {have}, nor a file")
