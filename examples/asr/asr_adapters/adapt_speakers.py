"""Train an adapter for every speaker of a manifest, in one run.

python examples/asr/asr_adapters/adapt_speakers.py \
    model.nemo_model=ds2.nemo \
    model.train_ds.manifest_filepath=all_speakers.json \
    model.adapter.speaker_key=speaker \
    adapter_store=adapters

Each adapter goes to the store as soon as it is finished. Run again, it goes on where it was interrupted, and trains
further those whose recordings changed. Every key stands in conf/asr_adapters/asr_adaptation.yaml.
"""

import sys
from pathlib import Path

import lightning.pytorch as pl
from nemo.core.config import hydra_runner
from omegaconf import DictConfig
from rich.console import Console

from nemo_ds2_adapters.adaptation.speakers.report import table, write_reports
from nemo_ds2_adapters.adaptation.speakers.run import adapt_speakers
from nemo_ds2_adapters.cli.script import check_keys, one_line_errors, open_overrides, quiet
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.nemo_archive import check_source, restore_model
from nemo_ds2_adapters.store.store import AdapterStore

CONFIG = Path(__file__).resolve().parents[3] / "conf" / "asr_adapters" / "asr_adaptation.yaml"


@hydra_runner(config_path=str(CONFIG.parent), config_name=CONFIG.stem)
@one_line_errors
def main(cfg: DictConfig) -> None:
    check_keys(cfg, CONFIG)
    quiet(cfg.log_level)
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


if __name__ == "__main__":
    sys.argv[1:] = open_overrides(sys.argv[1:])
    main()
