"""Training an adapter from Python, as train_asr_adapter.py does it."""

import difflib
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nemo.collections.asr.models import ASRModel
from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin
from omegaconf import DictConfig, OmegaConf

from nemo_ds2_adapters.adaptation.fit_settings import FitSettings
from nemo_ds2_adapters.adaptation.one_speaker import adapt_speaker
from nemo_ds2_adapters.adaptation.report import Adaptation
from nemo_ds2_adapters.adaptation.voice_prior.prior import VoicePrior, read_prior
from nemo_ds2_adapters.adapters.chosen import ChosenAdapter
from nemo_ds2_adapters.configs import shipped_config
from nemo_ds2_adapters.data.manifest import read_manifest
from nemo_ds2_adapters.errors import InputError

CONFIG = "asr_adapters/asr_adaptation"

# Where a setting of `adapt` stands in the config, the first that has it; `{}` is the adapter's type.
SECTIONS = ("model.adapter", "model.adapter.{}", "model.train_ds", "model.optim", "trainer", "exp_manager")
SINGLE = {"spec_augment": "model", "seed": ""}
NOT_SETTINGS = ("_target_", "prior", "adapter_name", "user_id", "manifest_filepath", "name")
SECTIONS_AS_SETTINGS = ("sched", "adapter_strategy", "global_cfg", "checkpoint_callback_params")


def adapt(
    model: ASRModel,
    name: str,
    train_manifest: str | os.PathLike[str],
    validation_manifest: str | os.PathLike[str] | None = None,
    prior: VoicePrior | str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Adaptation:
    """Train an adapter on a frozen base, and leave it enabled in the model.

    Args:
        model: a NeMo CTC model; its encoder is made adapter-capable if it is not. But for the adapter it is
            afterwards as it was.
        name: of the adapter.
        train_manifest: NeMo manifest of the person's recordings.
        validation_manifest: the best epoch on these is kept, or the base if none is better.
        prior: of this base, or its file: training starts from it, and goes by its recipe.
        settings: what conf/asr_adapters/asr_adaptation.yaml has, by the last part of the key: `lr`, `max_epochs`,
            `batch_size`, `layers`, `hidden_dims`, `exp_dir`, ...

    Returns:
        word error rates before and after, history, seconds, and the paths of the adapted `.nemo` and of the
        adapter's file.

    Raises:
        InputError: a setting, the name or the data are wrong; the model has the adapters it had, and the same
            ones are enabled.
        AdapterFileError: a file cannot be read or written.
    """
    values = config_with(settings)
    values["exp_manager"]["version"] = f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"  # NeMo's has seconds: too coarse
    plain = FitSettings.of(values, validation_manifest is not None)
    train = read_manifest(train_manifest, "train_manifest")
    validation = None
    if validation_manifest is not None:
        validation = read_manifest(validation_manifest, "validation_manifest")
    if not isinstance(model.encoder, AdapterModuleMixin):
        model.replace_adapter_compatible_modules()
    inputs = {"train_manifest": train_manifest, "validation_manifest": validation_manifest}
    if isinstance(prior, str | os.PathLike):
        inputs["prior"], prior = prior, read_prior(prior)
    return adapt_speaker(model, ChosenAdapter(name), train, validation, plain, inputs, prior=prior)


def config_with(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The scripts' config with some settings changed, as plain values.

    Raises InputError: names all unknown settings, each with the nearest known one.
    """
    cfg = shipped_config(CONFIG)
    kind = settings.get("adapter_type", cfg.model.adapter.adapter_type)
    places = dict(SINGLE)
    for section in (section.format(kind) for section in SECTIONS):
        for name, value in (OmegaConf.select(cfg, section) or DictConfig({})).items_ex(resolve=False):
            if name in SECTIONS_AS_SETTINGS or not (isinstance(value, DictConfig) or name in NOT_SETTINGS):
                places.setdefault(str(name), section)
    unknown = [name for name in settings if name not in places]
    if unknown:
        nearest = {name: difflib.get_close_matches(name, places, n=1, cutoff=0.0)[0] for name in unknown}
        raise InputError("; ".join(f"unknown setting {name}, the nearest is {nearest[name]}" for name in unknown))
    for name, value in settings.items():
        OmegaConf.update(cfg, f"{places[name]}.{name}".lstrip("."), value, merge=False)
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]
