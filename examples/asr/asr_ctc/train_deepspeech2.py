"""Train a DeepSpeech2 base model; an interrupted training goes on where it was.

python examples/asr/asr_ctc/train_deepspeech2.py \
    model.train_ds.manifest_filepath=train.json \
    model.validation_ds.manifest_filepath=validation.json

Every key stands in conf/deepspeech2/deepspeech2_small.yaml; --config-name=deepspeech2 is the large model, and
deepspeech2_syllables, deepspeech2_graphemes and deepspeech2_bpe are the same with other output units.
"""

import sys
from pathlib import Path

import lightning.pytorch as pl
from nemo.collections.asr.models import EncDecCTCModel, EncDecCTCModelBPE
from nemo.core.config import hydra_runner
from nemo.utils.exp_manager import exp_manager
from omegaconf import DictConfig, open_dict

from nemo_ds2_adapters.adaptation.outcome import best_validation_wer, save_model
from nemo_ds2_adapters.base_training.units import frequent_characters, make_tokenizer
from nemo_ds2_adapters.cli.script import check_keys, one_line_errors, open_overrides, quiet
from nemo_ds2_adapters.data.sampler import use_shorter_first
from nemo_ds2_adapters.data.sections import check_section, read_section

CONFIG = Path(__file__).resolve().parents[3] / "conf" / "deepspeech2" / "deepspeech2_small.yaml"


@hydra_runner(config_path=str(CONFIG.parent), config_name=CONFIG.stem)
@one_line_errors
def main(cfg: DictConfig) -> None:
    check_keys(cfg, *CONFIG.parent.glob("*.yaml"))
    quiet(cfg.log_level)
    sections = [read_section(cfg.model, name) for name in ("train_ds", "validation_ds")]
    writes_subwords = "tokenizer" in cfg.model
    if writes_subwords:
        make_tokenizer(cfg.model.tokenizer.dir, sections[0].utterances, cfg.tokenizer_vocab_size)
    elif cfg.get("max_labels") and cfg.labels is None:
        cfg.labels = frequent_characters(sections[0].utterances, cfg.max_labels)

    pl.seed_everything(cfg.seed)
    trainer = pl.Trainer(**cfg.trainer)
    log_dir = exp_manager(trainer, cfg.exp_manager)
    with open_dict(cfg.model):
        validation_ds = cfg.model.pop("validation_ds")  # NeMo's constructor refuses some names of manifests
    model_class = EncDecCTCModelBPE if writes_subwords else EncDecCTCModel
    model = model_class(cfg=cfg.model, trainer=trainer)
    for section in sections:
        check_section(section, model)
    model.setup_validation_data(validation_ds)
    if cfg.model.train_ds.shorter_first:
        use_shorter_first(model)
    model.maybe_init_from_pretrained_checkpoint(cfg)
    trainer.fit(model)

    print(f"best validation WER {100 * best_validation_wer(trainer):.1f} %")
    print(f"  model  {save_model(trainer, model, log_dir, cfg.exp_manager.name or cfg.name)}")


if __name__ == "__main__":
    sys.argv[1:] = open_overrides(sys.argv[1:])
    main()
