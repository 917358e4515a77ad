"""Train a personal adapter on a frozen base."""

from omegaconf import DictConfig, OmegaConf

from nemo_ds2_adapters.adaptation.one_speaker import adapt_speaker
from nemo_ds2_adapters.adaptation.settings import FitSettings
from nemo_ds2_adapters.adapters.chosen import chosen_adapter
from nemo_ds2_adapters.cli.script import hydra_command
from nemo_ds2_adapters.data.manifest import read_manifest
from nemo_ds2_adapters.formats.nemo_archive import check_source, restore_model


@hydra_command("asr_adapters/asr_adaptation")
def main(cfg: DictConfig) -> None:
    adapter = chosen_adapter(cfg.model.adapter)
    check_source(cfg.model.nemo_model, cfg.model.pretrained_model)
    manifests = {name: cfg.model[name].manifest_filepath for name in ("train_ds", "validation_ds")}
    has_validation = manifests["validation_ds"] is not None
    settings = FitSettings.of(OmegaConf.to_container(cfg, resolve=True), has_validation)  # type: ignore[arg-type]
    train, validation = (
        read_manifest(path, f"model.{name}.manifest_filepath") if name == "train_ds" or has_validation else None
        for name, path in manifests.items()
    )
    model = restore_model(cfg.model.nemo_model, cfg.model.pretrained_model)
    result = adapt_speaker(model, adapter, train or [], validation, settings)
    print("\n".join(result.lines()))
