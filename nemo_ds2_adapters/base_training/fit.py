"""A base model, trained from nothing or from another one, in NeMo's flow."""

import logging
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nemo.collections.asr.models import ASRModel, EncDecCTCModel, EncDecCTCModelBPE
from nemo.collections.common.tokenizers.sentencepiece_tokenizer import create_spt_model
from nemo.utils.callbacks import NeMoModelCheckpoint
from omegaconf import OmegaConf

from nemo_ds2_adapters.base_training.experiment import (
    REFUSALS,
    experiment,
    fit,
    make_trainer,
    nemo_path,
    one_line,
    seeded,
)
from nemo_ds2_adapters.base_training.statistics import with_statistics
from nemo_ds2_adapters.data.findings import check_recordings
from nemo_ds2_adapters.data.manifest import Utterance, manifest_paths
from nemo_ds2_adapters.data.sampler import use_shorter_first
from nemo_ds2_adapters.data.transcripts import check_vocabulary
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.atomic import check_not_input
from nemo_ds2_adapters.formats.nemo_archive import save_nemo

DATA, MANIFEST = ("train_ds", "validation_ds"), "manifest_filepath"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedBase:
    """What came of a base model's training."""

    path: Path  # of the `.nemo`, with the best epoch
    wer: float | None  # of that on the validation data, a fraction; None if epochs were compared by something else


def train_base(
    values: Mapping[str, Any],
    train: Sequence[Utterance],
    validation: Sequence[Utterance],
    say: Callable[[str], object] = logger.info,
) -> TrainedBase:
    """Train a base model; an interrupted training goes on where it was.

    Args:
        values: a config of conf/deepspeech2, as plain values.
        train: what to train on, the utterances of its section `train_ds`.
        validation: those of `validation_ds`.
        say: is told in lines what the recordings are like.
    """
    model_cfg = dict(values["model"])
    read: dict[str, Any] = {u.label: u.audio for u in [*train, *validation]}
    read |= {f"{name}={p}": p for name in DATA for p in manifest_paths(values["model"][name][MANIFEST], name)}
    if "tokenizer" in model_cfg:
        make_tokenizer(model_cfg["tokenizer"]["dir"], train, values["tokenizer_vocab_size"], read)
    trainer = make_trainer(values["trainer"])
    # NeMo leaves several channels as they are, and fails.
    model_cfg |= {name: {"channel_selector": "average", **model_cfg[name]} for name in DATA}
    validation_ds = model_cfg.pop("validation_ds")  # NeMo's constructor refuses some names of manifests
    model_cfg["preprocessor"] = with_statistics(model_cfg["preprocessor"], train)
    model_class = EncDecCTCModelBPE if "tokenizer" in model_cfg else EncDecCTCModel
    with seeded(values["seed"]), experiment(trainer, values["exp_manager"]) as folder:
        path = nemo_path(trainer, folder, values["exp_manager"].get("name") or values["name"])
        check_not_input(path, {**read, "init_from_nemo_model": values.get("init_from_nemo_model")})
        try:
            model = model_class(cfg=OmegaConf.create(model_cfg), trainer=trainer)
        except REFUSALS as error:
            raise InputError(f"model: {one_line(error)}") from error
        for name, utterances in zip(DATA, (train, validation)):
            key = f"model.{name}.{MANIFEST}"
            check_vocabulary(utterances, key, model)
            for line in check_recordings(utterances, model).lines(key):
                say(line)
        model.setup_validation_data(OmegaConf.create(validation_ds))
        if model_cfg["train_ds"].get("shorter_first"):
            use_shorter_first(model)
        try:
            model.maybe_init_from_pretrained_checkpoint(OmegaConf.create(dict(values)))
        except Exception as error:  # whatever NeMo, torch, YAML and tar raise on what nobody checked
            source = values.get("init_from_nemo_model")
            raise InputError(
                f"init_from_nemo_model={source}: no model of this shape ({one_line(error)[:300]})"
            ) from error
        fit(trainer, model)
        wer = load_best(model, trainer.checkpoint_callback)
        if trainer.is_global_zero:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_nemo(model, path)
    return TrainedBase(path, wer)


def load_best(model: ASRModel, callback: Any) -> float | None:
    """Give the model the weights of the best epoch, if a checkpoint callback has kept them.

    Returns its word error rate as a fraction, None if epochs are compared by something else or not at all.
    """
    if not isinstance(callback, NeMoModelCheckpoint) or not Path(callback.best_model_path).is_file():
        return None
    checkpoint = torch.load(callback.best_model_path, map_location="cpu", weights_only=False)  # this training's own
    model.load_state_dict(checkpoint["state_dict"])
    return float(callback.best_model_score) if callback.monitor == "val_wer" else None


def frequent_characters(utterances: Iterable[Utterance], limit: int) -> list[str]:
    """The most frequent characters of the transcripts (NFC: Korean syllables), `limit` at most, by frequency."""
    counts = Counter(character for u in utterances for character in unicodedata.normalize("NFC", u.text))
    return sorted(counts, key=lambda character: (-counts[character], character))[:limit]


def make_tokenizer(folder: str, utterances: Iterable[Utterance], vocab_size: int, read: Mapping[str, Any]) -> None:
    """Train SentencePiece (BPE) on the transcripts, for NeMo's `model.tokenizer.dir`; keep what is there already.

    Raises InputError: so few sub-words cannot even spell the transcripts, or a file would replace one of `read`, the
    inputs by name.
    """
    if (Path(folder) / "tokenizer.model").is_file():
        return
    for name in ("tokenizer.model", "tokenizer.vocab", "vocab.txt"):  # what NeMo writes
        check_not_input(Path(folder) / name, read)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as text:
        text.write("\n".join(utterance.text for utterance in utterances))
        text.flush()
        try:
            create_spt_model(text.name, vocab_size, -1, False, tokenizer_type="bpe", output_dir=folder)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(
                f"tokenizer_vocab_size={vocab_size} does not fit the training transcripts: {reason}"
            ) from error
