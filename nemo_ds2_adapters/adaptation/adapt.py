"""Training an adapter from Python, as train_asr_adapter.py does it."""

import difflib
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from nemo.collections.asr.models import ASRModel
from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin
from omegaconf import DictConfig, OmegaConf

from nemo_ds2_adapters.adaptation.outcome import Adaptation
from nemo_ds2_adapters.adaptation.train import prepare, train_adapter
from nemo_ds2_adapters.adapters.chosen import ChosenAdapter
from nemo_ds2_adapters.adapters.enabling import enable_adapters, enabled_names
from nemo_ds2_adapters.adapters.lifecycle import delete_adapter, list_adapters
from nemo_ds2_adapters.data.sections import read_section
from nemo_ds2_adapters.errors import InputError

CONFIG = Path(__file__).resolve().parents[1] / "conf" / "asr_adapters" / "asr_adaptation.yaml"

# Where the settings of `adapt` stand in the config; those of the adapter itself in the section of its type.
OWN_SETTINGS = ("hidden_dims", "activation", "dropout", "norm_position", "layers", "mode", "dim")
SECTIONS = {
    "model.adapter": (
        "adapter_type",
        "adapter_module_name",
        "adapter_state_dict_name",
        "init_from",
        "init_from_store",
        "continue_existing",
        "unfreeze_base",
        "cache",
        "cache_dir",
        "cache_memory",
        "cache_precision",
        "kl_weight",
        "l2_weight",
        "average_epochs",
        "folds",
        "patience",
    ),
    "model.train_ds": ("batch_size", "num_workers", "use_semi_sorted_batching", "shuffle"),
    "model.optim": ("lr", "weight_decay", "betas", "sched"),
    "model": ("spec_augment",),
    "trainer": ("max_epochs", "accelerator", "devices", "precision", "gradient_clip_val", "enable_progress_bar"),
    "exp_manager": ("exp_dir", "create_tensorboard_logger"),
    "": ("seed",),
}


def adapt(
    model: ASRModel,
    name: str,
    train_manifest: str | os.PathLike[str],
    validation_manifest: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Adaptation:
    """Train an adapter on a frozen base, and leave it enabled in the model.

    Args:
        model: a NeMo CTC model; its encoder is made adapter-capable if it is not.
        name: of the adapter.
        train_manifest: NeMo manifest of the person's recordings.
        validation_manifest: the best epoch on these is kept, or the base if none is better.
        settings: what conf/asr_adapters/asr_adaptation.yaml has, by the last part of the key: `lr`, `max_epochs`,
            `batch_size`, `layers`, `hidden_dims`, `exp_dir`, ... (`OWN_SETTINGS`, `SECTIONS`).

    Returns:
        word error rates before and after, history, seconds, and the paths of the adapted `.nemo` and of the
        adapter's file.

    Raises:
        InputError: a setting, the name or the data are wrong; the model has the adapters it had, and the same
            ones are enabled.
    """
    cfg = config_with(settings)
    cfg.model.train_ds.manifest_filepath = os.fspath(train_manifest)
    cfg.model.validation_ds.manifest_filepath = validation_manifest and os.fspath(validation_manifest)
    train = read_section(cfg.model, "train_ds")
    validation = read_section(cfg.model, "validation_ds") if validation_manifest else None
    if not isinstance(model.encoder, AdapterModuleMixin):
        model.replace_adapter_compatible_modules()
    cfg.exp_manager.version = f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"  # NeMo's has seconds: too coarse for a loop
    pl.seed_everything(cfg.seed)
    trainer = pl.Trainer(**cfg.trainer)
    model.set_trainer(trainer)
    adapter = ChosenAdapter(name)
    before = list_adapters(model)
    enabled_before = enabled_names(model) if before else []
    try:
        prepare(cfg, model, adapter, train, validation)
        return train_adapter(cfg, trainer, model, adapter)
    except BaseException:
        for new in set(list_adapters(model)) - set(before):
            delete_adapter(model, new)
        if before:
            enable_adapters(model, enabled_before)
        raise


def config_with(settings: dict[str, Any]) -> DictConfig:
    """The scripts' config with some settings changed.

    Raises:
        InputError: names all unknown settings, each with the nearest known one.
    """
    cfg = DictConfig(OmegaConf.load(CONFIG))
    kind = settings.get("adapter_type", cfg.model.adapter.adapter_type)
    places = {name: section for section, names in SECTIONS.items() for name in names}
    own = cfg.model.adapter.get(kind) or {}
    places.update({name: f"model.adapter.{kind}" for name in OWN_SETTINGS if name in own})
    unknown = [name for name in settings if name not in places]
    if unknown:
        nearest = {name: difflib.get_close_matches(name, places, n=1, cutoff=0.0)[0] for name in unknown}
        raise InputError("; ".join(f"unknown setting {name}, the nearest is {nearest[name]}" for name in unknown))
    for name, value in settings.items():
        OmegaConf.update(cfg, f"{places[name]}.{name}".lstrip("."), value, merge=False)
    return cfg
