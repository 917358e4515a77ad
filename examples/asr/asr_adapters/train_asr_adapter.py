"""Train a personal adapter on a frozen base.

python examples/asr/asr_adapters/train_asr_adapter.py \
    model.nemo_model=ds2.nemo \
    model.adapter.adapter_name=user_john \
    model.train_ds.manifest_filepath=john/train.json \
    model.validation_ds.manifest_filepath=john/validation.json

model.adapter.user_id='"john.doe@example.com"' in place of adapter_name names a person by any id.
Every key stands in conf/asr_adapters/asr_adaptation.yaml.
"""

import sys
from pathlib import Path

import lightning.pytorch as pl
from nemo.core.config import hydra_runner
from omegaconf import DictConfig

from nemo_ds2_adapters.adaptation.train import prepare, train_adapter
from nemo_ds2_adapters.adapters.chosen import chosen_adapter
from nemo_ds2_adapters.cli.script import check_keys, one_line_errors, open_overrides, quiet
from nemo_ds2_adapters.data.sections import read_section
from nemo_ds2_adapters.formats.nemo_archive import check_source, restore_model

CONFIG = Path(__file__).resolve().parents[3] / "conf" / "asr_adapters" / "asr_adaptation.yaml"


@hydra_runner(config_path=str(CONFIG.parent), config_name=CONFIG.stem)
@one_line_errors
def main(cfg: DictConfig) -> None:
    check_keys(cfg, CONFIG)
    quiet(cfg.log_level)
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


if __name__ == "__main__":
    sys.argv[1:] = open_overrides(sys.argv[1:])
    main()
