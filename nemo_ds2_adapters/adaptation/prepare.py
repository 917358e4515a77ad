"""A model made ready to train an adapter, and as it was before when that is over."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf, open_dict

from nemo_ds2_adapters.adaptation.fit_settings import FitSettings
from nemo_ds2_adapters.adapters.blocks import adapter_blocks, adapter_layer, adapter_names, base_modules
from nemo_ds2_adapters.base_training.experiment import REFUSALS, one_line
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.layers import RecurrentLayer

SECTIONS = ("train_ds", "validation_ds", "optim")  # of a model's config, which NeMo overwrites
MODULES = ("loss", "spec_augmentation")
CONTAINERS = ("_modules", "_parameters", "_buffers", "_cfg")


@contextmanager
def left_as_it_was(model: ASRModel) -> Iterator[None]:
    """After this block the base has the data, optimiser, trainer, loss, device and modes that it had before.

    What has been made of its adapters stays.
    """
    device = next(model.parameters()).device
    attributes = {name: value for name, value in vars(model).items() if name not in CONTAINERS}
    sections = {name: model.cfg[name] for name in SECTIONS if name in model.cfg}
    modules = {name: getattr(model, name) for name in MODULES if hasattr(model, name)}
    modes = [(module, module.training) for _, module in base_modules(model)]
    trained = [(p, p.requires_grad) for _, module in base_modules(model) for p in module.parameters(recurse=False)]
    try:
        yield
    finally:
        for name in vars(model).keys() - attributes.keys() - set(CONTAINERS):
            delattr(model, name)
        vars(model).update(attributes)
        for name, module in modules.items():
            setattr(model, name, module)
        _restore_sections(model, sections)
        model.to(device)
        for module, training in modes:
            module.training = training
        for _, block in adapter_blocks(model):
            for adapter in adapter_layer(block).values():
                adapter.train(block.training)
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)


def _restore_sections(model: ASRModel, sections: dict[str, Any]) -> None:
    with open_dict(model.cfg):
        for name in SECTIONS:
            if name in sections:
                model.cfg[name] = sections[name]
            else:
                model.cfg.pop(name, None)


def change_vocabulary(model: ASRModel, labels: Sequence[str] | None) -> bool:
    """Give the model other output characters, None for those it has.

    Returns:
        whether the output layer is a new one.

    Raises:
        InputError: the model writes sub-words, or it has adapters made for the old characters.
    """
    if labels is None:
        return False
    if hasattr(model, "tokenizer"):
        raise InputError("model.char_labels: this model writes sub-words, not characters")
    if adapter_names(model):
        raise InputError("model.char_labels: the model has adapters that depend on its vocabulary; use the base")
    old = model.decoder
    model.change_vocabulary(list(labels))
    return model.decoder is not old


def freeze_all_but_adapter(model: ASRModel, settings: FitSettings, has_new_output_layer: bool) -> None:
    """Freeze everything and unfreeze the enabled adapter; SpecAugment is that of the settings, not the base's.

    The frozen part stays in eval mode, so it computes what it will compute in use: no dropout, no dither, no
    batch statistics. `frozen_in_eval_mode: false` gives NeMo's behaviour.

    Raises:
        InputError: there is no such SpecAugment.
    """
    try:
        model.spec_augmentation = (
            model.from_config_dict(OmegaConf.create(dict(settings.spec_augment))) if settings.spec_augment else None
        )
    except Exception as error:  # whatever a class raises on arguments that nobody checked
        raise InputError(f"model.spec_augment: {error}") from error
    model.freeze()
    if settings.unfreeze_base:
        model.unfreeze()
    elif not settings.frozen_in_eval_mode:
        model.train()
        for module in model.modules():
            if isinstance(module, RecurrentLayer):
                module.dropout_when_frozen = True
    model.unfreeze_enabled_adapters(freeze_batchnorm=not settings.unfreeze_base)
    if has_new_output_layer:
        model.decoder.unfreeze()
    if model.spec_augmentation is not None:
        model.training = True  # of the model alone, not of its parts: it augments in training mode only
        model.spec_augmentation.train()


def set_optimizer(model: ASRModel, optim: Mapping[str, Any]) -> None:
    """Give the model NeMo's optimiser and schedule.

    Raises:
        InputError: they do not take these arguments.
    """
    with open_dict(model.cfg):  # NeMo keeps the optimiser only where the base has one, and trains nothing otherwise
        model.cfg.optim = {key: value for key, value in optim.items() if value is not None}  # `sched: null`
    try:
        model.setup_optimization()
    except (*REFUSALS, AttributeError, AssertionError, ImportError) as error:
        raise InputError(f"model.optim: {one_line(error)}") from error
