"""Train a DeepSpeech2 base model; an interrupted training goes on where it was."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from nemo_ds2_adapters.adaptation.fit_settings import some_within
from nemo_ds2_adapters.adaptation.settings import check_optim, check_seed
from nemo_ds2_adapters.base_training.fit import frequent_characters, train_base
from nemo_ds2_adapters.checks import check_whole
from nemo_ds2_adapters.cli.output import say
from nemo_ds2_adapters.cli.scripts.script import hydra_command
from nemo_ds2_adapters.data.manifest import read_manifest

UNITS = ("", "_syllables", "_graphemes", "_bpe")
CONFIGS = ("deepspeech2_small", "deepspeech2_streaming", *(f"deepspeech2{units}" for units in UNITS))

MANIFESTS = [f"model.{name}.manifest_filepath" for name in ("train_ds", "validation_ds")]


@hydra_command(*(f"deepspeech2/{config}" for config in CONFIGS))
def main(cfg: DictConfig) -> None:
    train, validation = (read_manifest(OmegaConf.select(cfg, key), key) for key in MANIFESTS)
    if cfg.get("max_labels") and cfg.labels is None:
        cfg.labels = frequent_characters(train, cfg.max_labels)
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    check_seed(values["seed"])
    check_optim(values["model"]["optim"])
    for name, utterances in (("train_ds", train), ("validation_ds", validation)):
        check_whole(f"model.{name}.batch_size", values["model"][name].get("batch_size"), 1)
        some_within(f"model.{name}", values["model"][name], utterances)
    check_whole("trainer.max_epochs", values["trainer"].get("max_epochs"), 1)
    trained = train_base(values, train, validation, say)
    print("not compared by WER" if trained.wer is None else f"best validation WER {100 * trained.wer:.1f} %")
    say(f"  model  {trained.path}")
