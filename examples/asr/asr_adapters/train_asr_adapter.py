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
from nemo.utils.exp_manager import exp_manager
from omegaconf import DictConfig

from nemo_ds2_adapters.adapters.restore import check_source, restore_model
from nemo_ds2_adapters.training.adapter_setup import attach_adapter, change_vocabulary, train_only
from nemo_ds2_adapters.training.chosen_adapter import chosen_adapter
from nemo_ds2_adapters.training.data import check_section, loader_config, read_section
from nemo_ds2_adapters.training.outcome import best_validation_wer, report, save_model, validation_wer
from nemo_ds2_adapters.training.script import check_keys, one_line_errors, open_overrides, quiet

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
    new_output_layer = change_vocabulary(model, cfg.model.char_labels)
    check_section(train, model)
    model.setup_training_data(loader_config(train, model))
    if validation:
        check_section(validation, model)
        model.setup_validation_data(loader_config(validation, model))
    model.setup_optimization(cfg.model.optim)
    attach_adapter(model, adapter, cfg.model.adapter)
    train_only(model, adapter, cfg.model.adapter, new_output_layer)

    cfg.exp_manager.create_checkpoint_callback &= has_validation  # nothing to compare epochs by otherwise
    log_dir = exp_manager(trainer, cfg.exp_manager)
    wer_before = validation_wer(trainer, model) if validation else None
    trainer.fit(model)
    model_path = save_model(trainer, model, log_dir, cfg.exp_manager.name or cfg.name)
    file_name = cfg.model.adapter.adapter_state_dict_name
    print("\n".join(report(model, adapter, wer_before, best_validation_wer(trainer), model_path, file_name)))


if __name__ == "__main__":
    sys.argv[1:] = open_overrides(sys.argv[1:])
    main()
