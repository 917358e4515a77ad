"""What training must not leave behind on a model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nemo.collections.asr.models import ASRModel
from omegaconf import open_dict

from nemo_ds2_adapters.adapters.blocks import adapter_blocks, adapter_layer, base_modules

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
