"""A model from a file or a name, ready to take adapters, and back to a file."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, open_dict

from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.atomic import replacement, sweep

if TYPE_CHECKING:
    from nemo.collections.asr.models import ASRModel
    from nemo.core import ModelPT

FULL = (errno.ENOSPC, errno.EDQUOT)


def restore_model(nemo_model: str | None, pretrained_model: str | None) -> ASRModel:
    """Restore a model, of a `.nemo`'s path or of a name that NeMo can download, with its encoder's adapter-capable
    variant.

    Raises InputError: both or none are given, the file does not exist, is no sound `.nemo` or names classes of others
    than NeMo and this package, or the encoder takes no adapters.
    """
    from nemo.collections.asr.models import ASRModel

    check_source(nemo_model, pretrained_model)
    source = nemo_model or pretrained_model
    restore = ASRModel.restore_from if nemo_model else ASRModel.from_pretrained
    try:
        cfg = restore(source, return_config=True)
        _use_adapter_encoder(cfg)
        return restore(source, override_config_path=cfg)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    except Exception as error:  # whatever NeMo, torch, YAML, tar and pickle raise on what nobody checked
        raise InputError(f"{source}: {_reason(error, is_archive=bool(nemo_model))}") from error


def save_nemo(model: ModelPT, path: str | os.PathLike[str]) -> None:
    """Write a `.nemo` so that a reader finds the old file or the new one: NeMo writes it piece by piece."""
    sweep(Path(path).parent)
    with replacement(path) as temporary:
        try:
            model.save_to(str(temporary))
        except RuntimeError as error:  # of torch, whose reason for it is not told
            raise AdapterFileError(f"{path}: cannot be written ({_line(error)}; {_temporary_folder()})") from error


def check_source(nemo_model: str | None, pretrained_model: str | None) -> None:
    """Refuse both, none, or a file that does not exist. Raises InputError: says which."""
    if bool(nemo_model) == bool(pretrained_model):
        state = "both are" if nemo_model else "none is"
        raise InputError(f"set one of model.nemo_model and model.pretrained_model, {state} set")
    if nemo_model and not Path(nemo_model).is_file():
        raise InputError(f"model.nemo_model={nemo_model}: no such file")


def _use_adapter_encoder(cfg: DictConfig) -> None:
    from nemo.core.classes import common
    from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin, get_registered_adapter
    from nemo.utils.model_utils import import_class_by_path

    target = cfg.get("encoder", {}).get("_target_")
    if not isinstance(target, str):
        raise InputError("the model has no encoder in its config, so it takes no adapters")
    # NeMo looks at its list when it builds the model; to look for an adapter-capable variant imports the class before.
    if not target.startswith(tuple(common.ALLOWED_TARGET_PREFIXES)):
        raise InputError(f"its encoder {target} is of a package that NeMo does not allow, it was not imported")
    info = get_registered_adapter(target)
    if info is not None:
        with open_dict(cfg):
            cfg.encoder._target_ = info.adapter_class_path
    elif not issubclass(import_class_by_path(target), AdapterModuleMixin):
        raise InputError(f"its encoder {target} takes no adapters, and no variant that does is registered")


def _reason(error: Exception, is_archive: bool) -> str:
    if isinstance(error, OSError) and error.errno in FULL:
        return f"cannot be unpacked ({error.strerror}; {_temporary_folder()})"
    if isinstance(error, PermissionError):
        return f"cannot be read ({error.strerror})"
    return f"{'not a .nemo archive, or not a sound one' if is_archive else 'cannot be had'} ({_line(error)})"


def _line(error: Exception) -> str:
    return " ".join(str(error.__cause__ or error).split())[:300] or type(error).__name__


def _temporary_folder() -> str:
    return f"the temporary folder is {tempfile.gettempdir()}, TMPDIR names another one"
