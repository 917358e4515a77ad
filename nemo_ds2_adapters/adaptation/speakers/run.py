"""One adapter per speaker, in one run: the base restored once, all recordings once through its frozen part."""

import hashlib
import json
import logging
from collections.abc import Sequence

import lightning.pytorch as pl
from lightning.pytorch.plugins import DoublePrecision, Precision
from nemo.collections.asr.models import ASRModel
from omegaconf import DictConfig
from tqdm import tqdm

from nemo_ds2_adapters.activations.point import why_not_exact
from nemo_ds2_adapters.adaptation.seeds import seeded
from nemo_ds2_adapters.adaptation.setup import attach_adapter
from nemo_ds2_adapters.adaptation.speakers.data import speakers_data, utterances_of
from nemo_ds2_adapters.adaptation.speakers.job import TEMPLATE, finished, job_for, keep, result_of, template_config
from nemo_ds2_adapters.adaptation.speakers.report import SpeakerResult
from nemo_ds2_adapters.adaptation.speakers.training import train_speakers
from nemo_ds2_adapters.adaptation.together.member import Settings
from nemo_ds2_adapters.adapters.chosen import ChosenAdapter
from nemo_ds2_adapters.adapters.enabling import enable_adapters
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.adapters.lifecycle import delete_adapter
from nemo_ds2_adapters.data.speakers import LEAST_UTTERANCES, Speaker, check_speakers, read_speakers
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.store.store import AdapterStore

MANIFEST_KEY = "model.train_ds.manifest_filepath"
BAR = "{desc}{percentage:3.0f} %|{bar}| {n}/{total} users [{elapsed}, {remaining} left]"


def adapt_speakers(cfg: DictConfig, trainer: pl.Trainer, model: ASRModel, store: AdapterStore) -> list[SpeakerResult]:
    """Train an adapter for every speaker of a manifest; each goes to the store as soon as it is finished.

    Each is what cross-validation and training on this speaker alone give, whoever the others are. Speakers whose
    adapter in the store was trained on the same data, base and settings are finished; where only the data changed,
    training goes on from the last version; a speaker with broken or too little data is skipped.

    Args:
        cfg: the config of conf/asr_adapters/asr_adaptation.yaml.
        trainer: decides the device and the precision.
        model: the base; nothing of it changes.
        store: where adapters go.

    Returns:
        one result per speaker, in the manifest's order.

    Raises:
        InputError: a setting is wrong, or the manifest cannot be read or names no speakers.
    """
    adapter = cfg.model.adapter
    settings = Settings.from_config(cfg)
    _check(cfg, trainer)
    speakers, nobodys = read_speakers(cfg.model.train_ds.manifest_filepath, MANIFEST_KEY, adapter.speaker_key)
    for line in nobodys:
        logging.getLogger(__name__).warning("left out: %s", line)
    check_speakers(tqdm(speakers, desc="checking recordings", unit="user", leave=False), MANIFEST_KEY, model)
    model.to(trainer.strategy.root_device)
    if isinstance(trainer.precision_plugin, DoublePrecision):
        model.double()
    model.spec_augmentation = None  # the base's own
    with seeded(cfg.seed):
        attach_adapter(model, ChosenAdapter(TEMPLATE), adapter)
    try:
        model.freeze()
        enable_adapters(model, TEMPLATE)
        if reason := why_not_exact(model):
            raise InputError(f"many speakers cannot be adapted in one run: {reason}")
        results = _adapt(cfg, settings, model, store, speakers)
    finally:
        delete_adapter(model, TEMPLATE)
    return [results[speaker.user_id] for speaker in speakers]


def _check(cfg: DictConfig, trainer: pl.Trainer) -> None:
    adapter, precision = cfg.model.adapter, trainer.precision_plugin
    if adapter.users_at_once < 1:
        raise InputError(f"model.adapter.users_at_once={adapter.users_at_once}: expected at least 1")
    if adapter.cache_dir is not None:
        raise InputError("model.adapter.cache_dir: for many speakers set model.adapter.keep_activations=true instead")
    if adapter.init_from is not None or adapter.continue_existing or adapter.unfreeze_base:
        raise InputError("model.adapter.init_from, continue_existing and unfreeze_base are for one adapter")
    if cfg.model.spec_augment is not None:
        raise InputError("model.spec_augment: many speakers are adapted without")
    if type(precision) not in (Precision, DoublePrecision):
        raise InputError(f"trainer.precision={precision.precision}: many speakers are adapted in 32-true or 64-true")


def _adapt(
    cfg: DictConfig, settings: Settings, model: ASRModel, store: AdapterStore, speakers: Sequence[Speaker]
) -> dict[str, SpeakerResult]:
    adapter = cfg.model.adapter
    description = {"adapter": template_config(model), "settings": vars(settings), "folds": adapter.folds}
    settings_hash = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    fingerprint(model)  # of the base as it is; hashed once
    results = {s.user_id: result_of(s, "skipped", problem=s.problem) for s in speakers if s.problem}
    pending = []
    for speaker in speakers:
        if speaker.problem is None and (done := finished(speaker, settings_hash, model, store)):
            results[speaker.user_id] = done
        elif speaker.problem is None:
            pending.append(speaker)
    with tqdm(total=len(speakers), initial=len(results), bar_format=BAR) as bar:
        for first in range(0, len(pending), adapter.users_at_once):
            group = pending[first : first + adapter.users_at_once]
            with speakers_data(cfg.model, model, store, group) as data:
                jobs = []
                for speaker, utterances in zip(group, utterances_of(group, data)):
                    if len(utterances) < LEAST_UTTERANCES:
                        problem = f"{len(utterances)} of {len(speaker.utterances)} utterances left by max_duration"
                        results[speaker.user_id] = result_of(speaker, "skipped", problem=problem)
                    else:
                        jobs.append(job_for(speaker, utterances, model, store))
                enable_adapters(model, TEMPLATE)
                for job, verdict, member in train_speakers(jobs, data, model, settings, adapter.folds):
                    metadata = {
                        **description,
                        "settings": settings_hash,
                        "training": vars(settings),
                        "data": job.speaker.data_hash(),
                        "seconds_of_speech": job.speaker.seconds,
                    }
                    results[job.speaker.user_id] = keep(job, verdict, member, metadata, model, store)
                    bar.update(len(results) - bar.n)
    return results
