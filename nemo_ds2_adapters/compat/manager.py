"""Save and load a person's adapter, alone or together with its base, by the original's calls."""

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.adapters.adapter import Adapter, renamed
from nemo_ds2_adapters.adapters.attach import attach
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.adapters.enabling import enable_adapters, enabled_adapters, enabled_names
from nemo_ds2_adapters.adapters.lifecycle import delete_adapter, rename_adapter
from nemo_ds2_adapters.adapters.names import missing_adapter
from nemo_ds2_adapters.compat.base_file import check_base_path, make_folder, read_base, replaced_base, write_base
from nemo_ds2_adapters.errors import InputError, naming
from nemo_ds2_adapters.formats.file import write_adapters
from nemo_ds2_adapters.formats.original import is_original_head, linear_sizes
from nemo_ds2_adapters.formats.reading import ORIGINAL, OURS, FilePath, read_adapter


class AdapterManager:
    """One adapter per file, `<adapter_name>_adapter.pt`.

    A head that replaces the output layer is written in the original's format, which the original reads as well; any
    other adapter in this package's (docs/adapter_file.md). Both are read, and NeMo's. Where the original prints a line
    and returns False, these calls raise; what they return is true.

    An adapter that the model has not, or a name that is not legal, is an `AdapterNameError`; a path of the wrong kind
    an `InputError`; a file that is damaged, has several adapters, does not fit or cannot be written an
    `AdapterFileError`.
    """

    @staticmethod
    def save_adapter(model: ASRModel, save_path: FilePath, adapter_name: str = "default") -> Path:
        """Write an adapter to `<save_path>/<adapter_name>_adapter.pt`, and return that.

        Args:
            model: where it is attached.
            save_path: directory, made if it is not there.
            adapter_name: which adapter; if the model has none of this name, its one enabled adapter is saved under it.
        """
        path = adapter_file_in(save_path, adapter_name)
        return _write(_adapter_to_save(model, adapter_name), path)

    @staticmethod
    def load_adapter(model: ASRModel, adapter_path: FilePath) -> str:
        """Attach the adapter of a file under its name, which is returned, enable it, and disable all others.

        An adapter of this name that the model has is replaced; on any error the model is as it was. One that was made
        for another base, as far as the file says, is a `BaseMismatchError`.
        """
        adapter = read_adapter(adapter_path)
        name = renamed(adapter, adapter.name).name  # legal, or nothing changes
        with naming(adapter_path), enabled_adapters(model, None):  # two heads cannot be enabled together
            loaded = attach(model, adapter, as_name=f"loading_{uuid4().hex}")
        if name in list_adapters(model):
            delete_adapter(model, name)
        rename_adapter(model, loaded, name)
        enable_adapters(model, name)
        return name

    @staticmethod
    def get_adapter_info(adapter_path: FilePath) -> dict[str, Any]:
        """`name`, `input_dim`, `hidden_dims` and `output_dim` of the adapter in a file, a chain of Linear layers,
        without
        a model."""
        adapter = read_adapter(adapter_path)
        with naming(adapter_path):
            sizes = linear_sizes(adapter)
        return {"name": adapter.name, "input_dim": sizes[0], "hidden_dims": sizes[1:-1], "output_dim": sizes[-1]}

    @staticmethod
    def save_model_with_adapter(
        model: ASRModel, model_path: FilePath, adapter_path: FilePath, adapter_name: str = "default"
    ) -> Path:
        """Write the base, without any adapter, and one adapter to a file of its own, which is returned.

        Args:
            model: both.
            model_path: of the base: `*.nemo`, or `*.pt` for its state dict and config, read with `weights_only=True`.
            adapter_path: directory for the adapter, as `save_path` of `save_adapter`.
            adapter_name: as for `save_adapter`.
        """
        path = adapter_file_in(adapter_path, adapter_name)
        adapter = _adapter_to_save(model, adapter_name)
        write_base(model, model_path)
        return _write(adapter, path)

    @staticmethod
    def load_model_with_adapter(model: ASRModel | None, model_path: FilePath, adapter_path: FilePath) -> ASRModel:
        """Load a base and one adapter for it, and return the model.

        Args:
            model: takes over the base's weights, and the adapter as in `load_adapter`; None builds the model from the
                file. On any error it is as it was; `model_path` differs in its weights alone (`InputError`).
            model_path: of the base, `*.nemo` or `*.pt`.
            adapter_path: of the adapter.
        """
        base = read_base(check_base_path(model_path))
        if model is None:
            AdapterManager.load_adapter(base, adapter_path)
            return base
        with replaced_base(model, base, model_path):
            AdapterManager.load_adapter(model, adapter_path)
        return model


def adapter_file_in(folder: FilePath, name: str) -> Path:
    """`<folder>/<name>_adapter.pt`, or an InputError: `folder` is no directory, or the name no file name."""
    folder = Path(folder)
    if folder.suffix == ".pt" or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder}: give the directory, the file in it will be {name}_adapter.pt")
    if Path(name).name != name:
        raise InputError(f"adapter_name={name!r}: is to be part of a file name, which has no {os.sep}")
    return folder / f"{name}_adapter.pt"


def _adapter_to_save(model: ASRModel, name: str) -> Adapter:
    source = name
    if name not in list_adapters(model):
        enabled = enabled_names(model)
        if len(enabled) != 1:
            raise missing_adapter(name, list_adapters(model))
        (source,) = enabled
    return renamed(attached_adapter(model, source), name)


def _write(adapter: Adapter, path: Path) -> Path:
    make_folder(path.parent)
    write_adapters([adapter], path, ORIGINAL if is_original_head(adapter) else OURS)
    return path
