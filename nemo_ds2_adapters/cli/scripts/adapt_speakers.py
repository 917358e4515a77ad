"""Train an adapter for every speaker of a manifest, in one run."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from nemo_ds2_adapters.activations.cache import CacheSettings
from nemo_ds2_adapters.adaptation.fit_settings import StartSettings
from nemo_ds2_adapters.adaptation.lightning_fit import place
from nemo_ds2_adapters.adaptation.many_speakers import adapt_speakers, within_limits
from nemo_ds2_adapters.adaptation.report import REPORTS, outcomes, table, write_reports
from nemo_ds2_adapters.adaptation.settings import Settings, check_whole
from nemo_ds2_adapters.adaptation.start import starting_adapter
from nemo_ds2_adapters.adaptation.voice_prior.fit_prior import PriorSettings
from nemo_ds2_adapters.adaptation.voice_prior.prior import check_fits, chosen_prior
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.cli.output import say
from nemo_ds2_adapters.cli.scripts.script import files_read, hydra_command, make_folder
from nemo_ds2_adapters.data.speakers import read_speakers
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.evaluation.report import WIDTH
from nemo_ds2_adapters.formats.atomic import check_not_input
from nemo_ds2_adapters.formats.nemo_archive import check_source, restore_model
from nemo_ds2_adapters.store.store import AdapterStore

MANIFEST = "model.train_ds.manifest_filepath"


@hydra_command("asr_adapters/speaker_adaptation")
def main(cfg: DictConfig) -> None:
    check_source(cfg.model.nemo_model, cfg.model.pretrained_model)
    if cfg.adapter_store is None:
        raise InputError("adapter_store is not set; give the folder or URL where the adapters go")
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    adapter, data = values["model"]["adapter"], values["model"]["train_ds"]
    settings, cache = Settings.of(values), CacheSettings.of(adapter)
    if cache.folder is not None:
        raise InputError("model.adapter.cache_dir: for many speakers set model.adapter.keep_activations=true instead")
    beginning = StartSettings.of(adapter)
    check_whole("model.adapter.users_at_once", adapter["users_at_once"], 1)
    prior, makes_priors = chosen_prior(adapter["prior"]), adapter["prior"] is None
    manifest = data["manifest_filepath"]
    speakers, nobodys = read_speakers(manifest, MANIFEST, adapter["speaker_key"])
    speakers = within_limits(speakers, data)
    folder = Path(cfg.output_dir or "speakers")
    recordings = {u.label: u.audio for speaker in speakers for u in speaker.utterances}
    for name in REPORTS:
        check_not_input(folder / name, {**files_read(cfg, MANIFEST), **recordings})

    model = restore_model(cfg.model.nemo_model, cfg.model.pretrained_model)
    place(model, values["trainer"])
    if prior is not None:
        check_fits(prior, fingerprint(model))
    start = starting_adapter(model, "speaker", beginning, settings.seed)
    make_folder(folder, f"output_dir={folder}")
    store = AdapterStore(cfg.adapter_store)
    results = adapt_speakers(
        model,
        speakers,
        store,
        settings,
        start,
        prior=prior,
        own_prior=PriorSettings.in_passing(settings.seed) if makes_priors else None,
        key=MANIFEST,
        users_at_once=adapter["users_at_once"],
        cache=cache,
        keep_activations=adapter["keep_activations"],
        progress=True,
        say=say,
    )
    write_reports(results, folder)
    Console(width=WIDTH).print(table(results))
    for line in nobodys:
        say(f"left out: {line}")
    for result in results:
        for finding in result.findings:
            say(f"{result.user}: {finding}")
    for outcome in outcomes(results):
        say(outcome)
    skipped = sum(result.problem is not None for result in results)
    reports = folder / REPORTS[1]
    say(f"{len(results) - skipped} users in {cfg.adapter_store}, {skipped} skipped; why for each: {reports}")
