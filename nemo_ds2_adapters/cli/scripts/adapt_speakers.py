"""Train an adapter for every speaker of a manifest, in one run."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from nemo.collections.asr.models import ASRModel
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from nemo_ds2_adapters.activations.cache import CacheSettings
from nemo_ds2_adapters.adaptation.fit_settings import StartSettings
from nemo_ds2_adapters.adaptation.lightning_fit import one_device_trainer, place
from nemo_ds2_adapters.adaptation.many_speakers import adapt_speakers, within_limits
from nemo_ds2_adapters.adaptation.plan import Plan
from nemo_ds2_adapters.adaptation.report import REPORTS, SpeakerResult, outcomes, table, write_reports
from nemo_ds2_adapters.adaptation.settings import Settings
from nemo_ds2_adapters.adaptation.start import starting_adapter
from nemo_ds2_adapters.adaptation.voice_prior.fit_prior import PriorSettings
from nemo_ds2_adapters.adaptation.voice_prior.prior import check_fits, chosen_prior
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.checks import check_whole
from nemo_ds2_adapters.cli.output import say
from nemo_ds2_adapters.cli.scripts.script import files_read, hydra_command, make_folder
from nemo_ds2_adapters.cluster.settings import ClusterSettings
from nemo_ds2_adapters.data.manifest import BadLine, manifest_paths, raw_lines
from nemo_ds2_adapters.data.speakers import Speaker, read_speakers
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.evaluation.report import WIDTH
from nemo_ds2_adapters.formats.atomic import check_not_input
from nemo_ds2_adapters.formats.nemo_archive import check_source, restore_model
from nemo_ds2_adapters.formats.scratch import ScratchFolder
from nemo_ds2_adapters.store.store import AdapterStore

MANIFEST = "model.train_ds.manifest_filepath"
PARQUET = "report.parquet"  # of a cluster
MOST_ROWS = 10_000  # users: of more there is no report but that


@hydra_command("asr_adapters/speaker_adaptation")
def main(cfg: DictConfig) -> None:
    check_source(cfg.model.nemo_model, cfg.model.pretrained_model)
    if cfg.adapter_store is None:
        raise InputError("adapter_store is not set; give the folder or URL where the adapters go")
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    adapter, data = values["model"]["adapter"], values["model"]["train_ds"]
    settings, cache, cluster = Settings.of(values), CacheSettings.of(adapter), ClusterSettings.of(values["cluster"])
    if cache.folder is not None:
        raise InputError("model.adapter.cache_dir: for many speakers set model.adapter.keep_activations=true instead")
    beginning = StartSettings.of(adapter)
    check_whole("model.adapter.users_at_once", adapter["users_at_once"], 1)
    prior = chosen_prior(adapter["prior"])
    folder = Path(cfg.output_dir or "speakers")
    speakers: list[Speaker] = []
    nobodys: list[BadLine] = []
    if cluster is None:
        speakers, nobodys = read_speakers(data["manifest_filepath"], MANIFEST, adapter["speaker_key"])
        speakers = within_limits(speakers, data)
    recordings = {u.label: u.audio for speaker in speakers for u in speaker.utterances}
    for name in (*REPORTS, PARQUET):
        check_not_input(folder / name, {**files_read(cfg, MANIFEST), **recordings})
    trainer = one_device_trainer(values["trainer"])

    model = restore_model(cfg.model.nemo_model, cfg.model.pretrained_model)
    place(model, trainer)
    if prior is not None:
        check_fits(prior, fingerprint(model))
    start = starting_adapter(model, "speaker", beginning, settings.seed)
    make_folder(folder, f"output_dir={folder}")
    store = AdapterStore(cfg.adapter_store)
    options = {
        "prior": prior,
        "own_prior": PriorSettings.in_passing(settings.seed) if adapter["prior"] is None else None,
        "key": MANIFEST,
        "users_at_once": adapter["users_at_once"],
        "cache": cache,
        "keep_activations": adapter["keep_activations"],
        "say": say,
    }
    if cluster is None:
        results = adapt_speakers(model, speakers, store, settings, start, progress=True, **options)
        conclude(results, map(str, nobodys), folder, cfg.adapter_store)
    else:
        store.check_writable()
        make_plan = partial(Plan.of, fingerprint(model), settings, start, **options)
        on_cluster(cluster, model, values, make_plan, folder)


def on_cluster(
    cluster: ClusterSettings,
    model: ASRModel,
    values: Mapping[str, Any],
    make_plan: Callable[..., Plan],
    folder: Path,
) -> None:
    """The same by the workers of a cluster, which start while the manifests are sorted."""
    from nemo_ds2_adapters.cluster.adapt import adapt_manifests, workers_of
    from nemo_ds2_adapters.cluster.results import read_results
    from nemo_ds2_adapters.cluster.shards import Shards
    from nemo_ds2_adapters.cluster.worker import Base, Source

    manifest, limits = values["model"]["train_ds"]["manifest_filepath"], values["model"]["train_ds"]
    speaker_key, store = values["model"]["adapter"]["speaker_key"], values["adapter_store"]
    for path in manifest_paths(manifest, MANIFEST):
        next(raw_lines(path, MANIFEST), None)  # can be read
    base = Base.of(values, fingerprint(model), cluster.cores)
    with ScratchFolder("shards") as scratch, workers_of(cluster, base, say) as pool:
        started = time.monotonic()
        shards = Shards(manifest, MANIFEST, speaker_key, scratch)
        hours, seconds = shards.seconds / 3600, time.monotonic() - started
        say(f"{shards.lines} lines, {hours:.1f} hours of speech, sorted by user in {seconds:.1f} s")
        source = Source(store, shards.manifests, speaker_key, limits)
        progress = adapt_manifests(pool, model, shards, source, make_plan, folder / PARQUET, say)
    results = read_results(folder / PARQUET)
    if progress.users <= MOST_ROWS:
        conclude(sorted(results, key=attrgetter("user")), shards.nobodys, folder, store)
        return
    for line in (*(f"left out: {line}" for line in shards.nobodys), *outcomes(results)):
        say(line)
    say(f"{progress.users - progress.skipped} users in {store}, {progress.skipped} skipped: {folder / PARQUET}")


def conclude(results: Sequence[SpeakerResult], nobodys: Iterable[str], folder: Path, store: str) -> None:
    """Write the reports, and say what came of everybody."""
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
    say(f"{len(results) - skipped} users in {store}, {skipped} skipped; why for each: {folder / REPORTS[1]}")
