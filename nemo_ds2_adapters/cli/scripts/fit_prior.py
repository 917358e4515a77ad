"""Learn a voice prior from a population."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nemo.collections.asr.models import ASRModel
from omegaconf import DictConfig, OmegaConf

from nemo_ds2_adapters.activations.cache import CacheSettings
from nemo_ds2_adapters.adaptation.fit_settings import StartSettings
from nemo_ds2_adapters.adaptation.lightning_fit import one_device_trainer, place
from nemo_ds2_adapters.adaptation.start import starting_adapter
from nemo_ds2_adapters.adaptation.voice_prior.federated import refresh_prior
from nemo_ds2_adapters.adaptation.voice_prior.fit_prior import NAME, PriorSettings, learn_prior
from nemo_ds2_adapters.adaptation.voice_prior.prior import VoicePrior, describe, save_prior
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.cli.output import say
from nemo_ds2_adapters.cli.scripts.script import files_read, hydra_command, make_folder_of
from nemo_ds2_adapters.cluster.settings import ClusterSettings
from nemo_ds2_adapters.data.speakers import check_speakers, read_speakers
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.atomic import check_not_input
from nemo_ds2_adapters.formats.nemo_archive import check_source, restore_model
from nemo_ds2_adapters.store.store import AdapterStore

MANIFEST = "model.train_ds.manifest_filepath"


@hydra_command("asr_adapters/voice_prior")
def main(cfg: DictConfig) -> None:
    check_source(cfg.model.nemo_model, cfg.model.pretrained_model)
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    adapter, manifest = values["model"]["adapter"], values["model"]["train_ds"]["manifest_filepath"]
    if not isinstance(cfg.output, str) or not cfg.output:
        raise InputError(f"output={cfg.output}: give the path of the file to write")
    settings = PriorSettings(seed=cfg.seed, **values["prior"])
    beginning, cache = StartSettings.of(adapter), CacheSettings(memory=adapter["cache_memory"])
    cluster = ClusterSettings.of(values["cluster"])
    if cluster is not None and cfg.from_store:
        raise InputError("cluster=ray does not go with from_store, whose prior is not learnt by parts: leave it out")
    trainer = one_device_trainer(values["trainer"])
    store = AdapterStore(cfg.from_store, create=False) if cfg.from_store else None
    needs_none = store is not None and manifest is None
    speakers, nobodys = ([], []) if needs_none else read_speakers(manifest, MANIFEST, adapter["speaker_key"])
    recordings = {u.label: u.audio for speaker in speakers for u in speaker.utterances}
    inputs = files_read(cfg, *(() if needs_none else (MANIFEST,)))
    check_not_input(cfg.output, {**inputs, **recordings, "from_store": cfg.from_store})
    make_folder_of(Path(cfg.output), f"output={cfg.output}")

    model = restore_model(cfg.model.nemo_model, cfg.model.pretrained_model)
    place(model, trainer)
    check_speakers(speakers, MANIFEST, model)
    for line in nobodys:
        say(f"left out: {line}")
    for speaker in speakers:
        if speaker.problem is not None:
            say(f"left out: {speaker.user_id}: {speaker.problem}")
    if store is None:
        start = starting_adapter(model, NAME, beginning, settings.seed)
        learnt = partial(learn_prior, model, speakers, start, settings)
        prior = (
            learnt(cache.open(), True)
            if cluster is None
            else by_workers(learnt, cluster, model, start, settings, values)
        )
    else:
        prior = refresh_prior(model, store, speakers, settings, cache.open(), say)
    save_prior(prior, cfg.output)
    for sentence in describe(prior):
        say(sentence)
    say(f"  {cfg.output}")


def by_workers(
    learnt: Callable[..., VoicePrior],
    cluster: ClusterSettings,
    model: ASRModel,
    start: Adapter,
    settings: PriorSettings,
    values: Mapping[str, Any],
) -> VoicePrior:
    """The same, its parts at the same time by the workers of a cluster."""
    from nemo_ds2_adapters.cluster.adapt import learning, workers_of
    from nemo_ds2_adapters.cluster.worker import Base

    with workers_of(cluster, Base.of(values, fingerprint(model), cluster.cores), say) as pool:
        return learnt(learn=learning(pool, start, settings))
