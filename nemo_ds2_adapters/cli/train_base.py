"""Train a DeepSpeech2 base model; an interrupted training goes on where it was."""

import lightning.pytorch as pl
from nemo.collections.asr.models import EncDecCTCModel, EncDecCTCModelBPE
from nemo.utils.exp_manager import exp_manager
from omegaconf import DictConfig, open_dict

from nemo_ds2_adapters.adaptation.outcome import best_validation_wer, save_model
from nemo_ds2_adapters.base_training.units import frequent_characters, make_tokenizer
from nemo_ds2_adapters.cli.script import hydra_command
from nemo_ds2_adapters.data.sampler import use_shorter_first
from nemo_ds2_adapters.data.sections import check_section, read_section

UNITS = ("", "_syllables", "_graphemes", "_bpe")
CONFIGS = ("deepspeech2_small", *(f"deepspeech2{units}" for units in UNITS))


@hydra_command(*(f"deepspeech2/{config}" for config in CONFIGS))
def main(cfg: DictConfig) -> None:
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

    wer = best_validation_wer(trainer)
    print("not validated" if wer is None else f"best validation WER {100 * wer:.1f} %")
    print(f"  model  {save_model(trainer, model, log_dir, cfg.exp_manager.name or cfg.name)}")
