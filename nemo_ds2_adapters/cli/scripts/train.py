"""Train a personal adapter on a frozen base."""

from omegaconf import DictConfig, OmegaConf

from nemo_ds2_adapters.adaptation.fit_settings import FitSettings
from nemo_ds2_adapters.adaptation.one_speaker import adapt_speaker
from nemo_ds2_adapters.adaptation.voice_prior.prior import chosen_prior
from nemo_ds2_adapters.adapters.chosen import chosen_adapter
from nemo_ds2_adapters.cli.output import say
from nemo_ds2_adapters.cli.scripts.script import files_read, hydra_command
from nemo_ds2_adapters.data.manifest import read_manifest
from nemo_ds2_adapters.formats.nemo_archive import check_source, restore_model

TRAIN, VALIDATION = (f"model.{name}.manifest_filepath" for name in ("train_ds", "validation_ds"))


@hydra_command("asr_adapters/asr_adaptation")
def main(cfg: DictConfig) -> None:
    adapter = chosen_adapter(cfg.model.adapter)
    check_source(cfg.model.nemo_model, cfg.model.pretrained_model)
    manifests = {key: OmegaConf.select(cfg, key) for key in (TRAIN, VALIDATION)}
    has_validation = manifests[VALIDATION] is not None
    settings = FitSettings.of(OmegaConf.to_container(cfg, resolve=True), has_validation)  # type: ignore[arg-type]
    train = read_manifest(manifests[TRAIN], TRAIN)
    validation = read_manifest(manifests[VALIDATION], VALIDATION) if has_validation else None
    prior = chosen_prior(cfg.model.adapter.prior)
    model = restore_model(cfg.model.nemo_model, cfg.model.pretrained_model)
    result = adapt_speaker(model, adapter, train, validation, settings, files_read(cfg, *manifests), say, prior)
    for line in result.lines():
        say(line)
