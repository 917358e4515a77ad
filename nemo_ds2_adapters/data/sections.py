"""A script's data sections: checked, and set up the way the base reads text and audio."""

from dataclasses import dataclass

from nemo.collections.asr.models import ASRModel
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from nemo_ds2_adapters.data.findings import check_recordings
from nemo_ds2_adapters.data.manifest import Utterance, read_manifest
from nemo_ds2_adapters.data.transcripts import check_vocabulary
from nemo_ds2_adapters.text import printable

INHERITED_KEYS = ("sample_rate", "labels", "parser", "normalize_transcripts", "use_start_end_token")


@dataclass(frozen=True)
class DataSection:
    """One of `train_ds`, `validation_ds` and `test_ds` with the utterances of its manifest."""

    name: str
    cfg: DictConfig
    utterances: list[Utterance]

    @property
    def manifest_key(self) -> str:
        """Config key of the manifest, for messages."""
        return f"model.{self.name}.manifest_filepath"


def read_section(model_cfg: DictConfig, name: str) -> DataSection:
    """Read the manifest of a section, before any model is restored.

    Raises:
        InputError: the manifest or a line of it is wrong.
    """
    cfg = model_cfg[name]
    return DataSection(name, cfg, read_manifest(cfg.manifest_filepath, f"model.{name}.manifest_filepath"))


def check_section(section: DataSection, model: ASRModel) -> None:
    """Check transcripts and recordings against the model, and print what was found.

    Raises:
        InputError: a transcript or a recording that the model cannot use.
    """
    check_vocabulary(section.utterances, section.manifest_key, model)
    utterances = tqdm(section.utterances, desc="checking recordings", leave=False)
    print("\n".join(map(printable, check_recordings(utterances, model).lines(section.manifest_key))))


def loader_config(section: DataSection, model: ASRModel) -> DictConfig:
    """The section's config for NeMo's data loaders, completed by how the base reads text and audio."""
    base = model.cfg.get("train_ds") or {}
    inherited = {key: base[key] for key in INHERITED_KEYS if key in base and key not in section.cfg}
    merged = OmegaConf.merge({"channel_selector": "average"}, section.cfg, inherited)
    return DictConfig(OmegaConf.to_container(merged, resolve=True))
