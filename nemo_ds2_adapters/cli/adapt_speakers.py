"""Train an adapter for every speaker of a manifest, in one run."""

from pathlib import Path

import lightning.pytorch as pl
from omegaconf import DictConfig
from rich.console import Console

from nemo_ds2_adapters.adaptation.speakers.report import table, write_reports
from nemo_ds2_adapters.adaptation.speakers.run import adapt_speakers
from nemo_ds2_adapters.cli.script import hydra_command
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.nemo_archive import check_source, restore_model
from nemo_ds2_adapters.store.store import AdapterStore


@hydra_command("asr_adapters/speaker_adaptation")
def main(cfg: DictConfig) -> None:
    check_source(cfg.model.nemo_model, cfg.model.pretrained_model)
    if cfg.adapter_store is None:
        raise InputError("adapter_store is not set; give the folder or URL where the adapters go")

    pl.seed_everything(cfg.seed)
    trainer = pl.Trainer(**cfg.trainer)
    model = restore_model(cfg.model.nemo_model, cfg.model.pretrained_model, trainer)
    store = AdapterStore(cfg.adapter_store)
    results = adapt_speakers(cfg, trainer, model, store)

    folder = Path(cfg.output_dir or "speakers")
    write_reports(results, folder)
    Console().print(table(results))
    skipped = sum(result.problem is not None for result in results)
    print(f"{len(results) - skipped} users in {cfg.adapter_store}, {skipped} skipped; reports in {folder}")
