"""A model made ready to train adapters, and the data for it; and as it was before when that is over."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf, open_dict
from torch.utils.data import DataLoader

from nemo_ds2_adapters.activations.dataset import PrefixData
from nemo_ds2_adapters.activations.point import resume_point, why_not_exact
from nemo_ds2_adapters.adaptation.fit_settings import FitSettings
from nemo_ds2_adapters.adapters.blocks import adapter_blocks, adapter_layer, base_modules, list_adapters
from nemo_ds2_adapters.base_training.experiment import REFUSALS, one_line
from nemo_ds2_adapters.data.dataset import UtteranceDataset
from nemo_ds2_adapters.data.findings import check_recordings
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.data.sampler import SeededBatchSampler, use_seeded_batches
from nemo_ds2_adapters.data.transcripts import check_vocabulary
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
    if list_adapters(model):
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


# Keys of a data section that are followed here; what others ask for, NeMo's own data sets do.
FOLLOWED = {
    *("manifest_filepath", "min_duration", "max_duration", "batch_size", "shuffle", "drop_last"),
    *("num_workers", "pin_memory", "use_semi_sorted_batching", "randomization_factor"),
}
INHERITED_KEYS = ("sample_rate", "labels", "parser", "normalize_transcripts", "use_start_end_token")


def set_up_data(
    model: ASRModel, train: Sequence[Utterance], validation: Sequence[Utterance] | None, settings: FitSettings
) -> tuple[list[PrefixData], str | None]:
    """Give a model its training data, and validation data if there are any.

    Args:
        model: with its trainer, everything frozen that is to be frozen, its adapter enabled.
        train: utterances of `settings.train_ds`.
        validation: those of `settings.validation_ds`, None if there are none.
        settings: of the training.

    Returns:
        activations still to be computed, of training and validation; or none and why the frozen part is to be computed
        in every epoch.

    Raises:
        InputError: `cache: required`, and it is not exact; or a key is wrong.
    """
    sections = [("train_ds", settings.train_ds, train)]
    if validation is not None:
        sections.append(("validation_ds", settings.validation_ds, validation))
    nemos = {
        name: [key for key, value in section.items() if value and key not in FOLLOWED] for name, section, _ in sections
    }
    mode, others = settings.cache.mode, [f"model.{name}.{key} is set" for name, keys in nemos.items() for key in keys]
    reason = "model.adapter.cache=off" if mode == "off" else why_not_exact(model) or next(iter(others), None)
    if reason and mode == "required":
        raise InputError(f"model.adapter.cache=required, but {reason}")
    if others:
        for name, section, _ in sections:
            cfg = OmegaConf.create({"channel_selector": "average", **dict(section), **_inherited(model, section)})
            getattr(model, "setup_training_data" if name == "train_ds" else "setup_validation_data")(cfg)
        use_seeded_batches(model, settings.seed)
        return [], reason
    datasets: list[Any] = [UtteranceDataset(utterances, model) for _, _, utterances in sections]
    data: list[PrefixData] = []
    if reason is None:
        cache, point = settings.cache.open(), resume_point(model)
        data = [PrefixData(model, dataset, point, cache) for dataset in datasets]
    for (name, section, _), dataset in zip(sections, data or datasets):
        loader = _loader(model, dataset, section, settings.seed, workers=not data)
        setattr(model, "_train_dl" if name == "train_ds" else "_validation_dl", loader)
    return data, reason


def _inherited(model: ASRModel, section: Mapping[str, Any]) -> dict[str, Any]:
    """How the base reads text and audio, where the section does not say it."""
    base = model.cfg.get("train_ds") or {}
    return {key: base[key] for key in INHERITED_KEYS if key in base and key not in section}


def _loader(
    model: ASRModel, data: UtteranceDataset | PrefixData, section: Mapping[str, Any], seed: int, workers: bool
) -> DataLoader:
    """With the batches that NeMo's loader would have."""
    common = {"collate_fn": data.collate_fn, "pin_memory": section.get("pin_memory", False)}
    if workers:
        common["num_workers"] = section.get("num_workers", 0)
    drop_last, shuffle = section.get("drop_last", False), section.get("shuffle", False)
    if not section.get("use_semi_sorted_batching", False):
        return DataLoader(data, section["batch_size"], shuffle=shuffle, drop_last=drop_last, **common)
    sampler = SeededBatchSampler(
        global_rank=model.global_rank,
        world_size=model.world_size,
        durations=[utterance.duration for utterance in data.utterances],
        batch_size=section["batch_size"],
        batch_shuffle=shuffle,
        drop_last=drop_last,
        randomization_factor=section.get("randomization_factor"),
        seed=seed,
    )
    return DataLoader(data, batch_size=None, sampler=sampler, **common)


def check_data(model: ASRModel, train: Sequence[Utterance], validation: Sequence[Utterance] | None) -> Iterator[str]:
    """Lines on what the data are like; InputError on a transcript or a recording that the model cannot use."""
    for name, utterances in (("train_ds", train), ("validation_ds", validation)):
        key = f"model.{name}.manifest_filepath"
        if utterances is not None:
            check_vocabulary(utterances, key, model)
            yield from check_recordings(utterances, model).lines(key)


def compute(data: Sequence[PrefixData], precision: torch.dtype | None, progress: bool) -> str:
    """Run everything through the frozen part, and say how long that took."""
    started = time.monotonic()
    computed = sum(one.compute(precision, progress) for one in data)
    seconds, stored = time.monotonic() - started, sum(map(len, data)) - computed
    return f"frozen part: computed once, {computed} utterances in {seconds:.1f} s, {stored} were there from before"
