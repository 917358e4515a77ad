"""The data of one adapter's training: recordings, or activations in their place where that is exact."""

from collections.abc import Mapping, Sequence
from typing import Any

from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from nemo_ds2_adapters.activations.dataset import PrefixData
from nemo_ds2_adapters.activations.point import resume_point, why_not_exact
from nemo_ds2_adapters.adaptation.fit_settings import FitSettings
from nemo_ds2_adapters.data.dataset import UtteranceDataset
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.data.sampler import SeededBatchSampler, use_seeded_batches
from nemo_ds2_adapters.errors import InputError

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
