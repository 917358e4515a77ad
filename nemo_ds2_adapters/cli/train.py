"""Train a personal adapter on a frozen base."""

import lightning.pytorch as pl
from omegaconf import DictConfig

from nemo_ds2_adapters.adaptation.train import prepare, train_adapter
from nemo_ds2_adapters.adapters.chosen import chosen_adapter
from nemo_ds2_adapters.cli.script import hydra_command
from nemo_ds2_adapters.data.sections import read_section
from nemo_ds2_adapters.formats.nemo_archive import check_source, restore_model


@hydra_command("asr_adapters/asr_adaptation")
def main(cfg: DictConfig) -> None:
    adapter = chosen_adapter(cfg.model.adapter)
    check_source(cfg.model.nemo_model, cfg.model.pretrained_model)
    train = read_section(cfg.model, "train_ds")
    has_validation = cfg.model.validation_ds.manifest_filepath is not None
    validation = read_section(cfg.model, "validation_ds") if has_validation else None

    pl.seed_everything(cfg.seed)
    trainer = pl.Trainer(**cfg.trainer)
    model = restore_model(cfg.model.nemo_model, cfg.model.pretrained_model, trainer)
    prepare(cfg, model, adapter, train, validation)
    result = train_adapter(cfg, trainer, model, adapter)
    print("\n".join(result.lines()))
