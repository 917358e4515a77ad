"""A model from a file or a name, ready to take adapters, and back to a file."""

import os
from pathlib import Path
from tarfile import TarError
from typing import Any
from uuid import uuid4

from nemo.collections.asr.models import ASRModel
from nemo.core import ModelPT
from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin, get_registered_adapter
from nemo.utils.model_utils import import_class_by_path
from omegaconf import DictConfig, open_dict

from nemo_ds2_adapters.errors import AdapterFileError, InputError


def restore_model(nemo_model: str | None, pretrained_model: str | None, trainer: Any = None) -> ASRModel:
    """Restore a model with the adapter-capable variant of its encoder.

    Args:
        nemo_model: path of a `.nemo`.
        pretrained_model: or the name of a model NeMo can download.
        trainer: the Lightning trainer the model will run in.

    Raises:
        InputError: both or none are given, the file does not exist or is no `.nemo`, or the encoder takes no
            adapters.
    """
    check_source(nemo_model, pretrained_model)
    if pretrained_model:
        cfg = ASRModel.from_pretrained(pretrained_model, return_config=True)
        _use_adapter_encoder(cfg, pretrained_model)
        return ASRModel.from_pretrained(pretrained_model, override_config_path=cfg, trainer=trainer)
    try:
        cfg = ASRModel.restore_from(nemo_model, return_config=True)
    except (OSError, ValueError, TarError) as error:
        raise InputError(f"{nemo_model}: not a .nemo archive ({error})") from error
    _use_adapter_encoder(cfg, str(nemo_model))
    return ASRModel.restore_from(nemo_model, override_config_path=cfg, trainer=trainer)


def save_nemo(model: ModelPT, path: Path) -> None:
    """Write a `.nemo` so that a reader finds the old file or the new one: NeMo writes it piece by piece.

    Raises:
        AdapterFileError: the operating system refuses; an existing file is untouched.
    """
    temporary = path.with_name(f".{path.stem}.{uuid4().hex}.nemo")
    try:
        model.save_to(str(temporary))
        os.replace(temporary, path)
    except OSError as error:
        raise AdapterFileError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_source(nemo_model: str | None, pretrained_model: str | None) -> None:
    """Refuse both, none, or a file that does not exist.

    Raises:
        InputError: says which.
    """
    if bool(nemo_model) == bool(pretrained_model):
        state = "both are" if nemo_model else "none is"
        raise InputError(f"set one of model.nemo_model and model.pretrained_model, {state} set")
    if nemo_model and not Path(nemo_model).is_file():
        raise InputError(f"model.nemo_model={nemo_model}: no such file")


def _use_adapter_encoder(cfg: DictConfig, source: str) -> None:
    target = cfg.get("encoder", {}).get("_target_")
    if target is None:
        raise InputError(f"{source}: the model has no encoder in its config, so it takes no adapters")
    info = get_registered_adapter(target)
    if info is not None:
        with open_dict(cfg):
            cfg.encoder._target_ = info.adapter_class_path
    elif not issubclass(import_class_by_path(target), AdapterModuleMixin):
        raise InputError(f"{source}: its encoder {target} takes no adapters, and no variant that does is registered")
