"""Learn a voice prior from a population."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.adaptation.federated import refresh_prior
from nemo_ds2_adapters.adaptation.fit_prior import NAME, PriorSettings, learn_prior
from nemo_ds2_adapters.adaptation.fit_settings import StartSettings
from nemo_ds2_adapters.adaptation.lightning_fit import place
from nemo_ds2_adapters.adaptation.prior import describe, save_prior
from nemo_ds2_adapters.adaptation.start import starting_adapter
from nemo_ds2_adapters.cli.output import say
from nemo_ds2_adapters.cli.script import hydra_command, make_folder
from nemo_ds2_adapters.data.manifest import manifest_paths
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
    if not isinstance(cfg.output, str):
        raise InputError(f"output={cfg.output}: give the path of the file to write")
    settings = PriorSettings(seed=cfg.seed, **values["prior"])
    beginning = StartSettings.of(adapter)
    store = AdapterStore(cfg.from_store, create=False) if cfg.from_store else None
    needs_none = store is not None and manifest is None
    speakers, nobodys = ([], []) if needs_none else read_speakers(manifest, MANIFEST, adapter["speaker_key"])
    inputs = {} if needs_none else {f"{MANIFEST}={path}": path for path in manifest_paths(manifest, MANIFEST)}
    recordings = {u.label: u.audio for speaker in speakers for u in speaker.utterances}
    check_not_input(
        cfg.output, {**inputs, **recordings, "model.nemo_model": cfg.model.nemo_model, "from_store": cfg.from_store}
    )
    make_folder(Path(cfg.output).parent, f"output={cfg.output}")

    model = restore_model(cfg.model.nemo_model, cfg.model.pretrained_model)
    place(model, values["trainer"])
    check_speakers(speakers, MANIFEST, model)
    for line in nobodys:
        say(f"left out: {line}")
    for speaker in speakers:
        if speaker.problem is not None:
            say(f"left out: {speaker.user_id}: {speaker.problem}")
    cache = PrefixCache(memory=adapter["cache_memory"])
    if store is None:
        start = starting_adapter(model, NAME, beginning, settings.seed)
        prior = learn_prior(model, speakers, start, settings, cache, progress=True)
    else:
        prior = refresh_prior(model, store, speakers, settings, cache, say)
    save_prior(prior, cfg.output)
    for sentence in describe(prior):
        say(sentence)
    say(f"  {cfg.output}")
