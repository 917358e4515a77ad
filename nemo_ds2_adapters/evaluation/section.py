"""Scores of a model on a manifest, utterance by utterance."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from nemo.collections.asr.metrics.wer import word_error_rate_detail
from nemo.collections.asr.models import ASRModel
from omegaconf import DictConfig, open_dict

from nemo_ds2_adapters.evaluation.error_counts import composed


@dataclass(frozen=True)
class Score:
    """Reference and hypothesis of an utterance, and how far apart they are."""

    audio_filepath: str
    duration: float  # seconds
    reference: str
    hypothesis: str
    wer: float | None  # fraction of the reference's words, None if it has none
    cer: float | None  # fraction of the reference's characters, None if it has none


def transcribe_section(trainer: pl.Trainer, model: ASRModel, cfg: DictConfig) -> list[Score]:
    """Transcribe a data section with the adapters that are enabled, and score each utterance.

    Args:
        trainer: decides device and precision, and shows the progress.
        model: frozen.
        cfg: a NeMo data section with one manifest.

    Returns:
        one score per utterance, in the manifest's order.
    """
    with open_dict(cfg):
        cfg.return_sample_id = True
    model.setup_test_data(cfg)
    loader = model.test_dataloader()
    texts = {}
    for batch in trainer.predict(model, loader) or []:
        texts.update({int(sample_id): _text(hypothesis) for sample_id, hypothesis in batch})
    entries = loader.dataset.manifest_processor.collection
    return [_score(entries[i], texts[i]) for i in sorted(texts, key=lambda i: entries[i].id)]


def total_score(scores: Iterable[Score]) -> tuple[float, float, int]:
    """Word and character error rate over all utterances, as fractions, and the number of reference words."""
    hypotheses, references = zip(*((score.hypothesis, score.reference) for score in scores))
    wer, words, *_ = word_error_rate_detail(hypotheses, references)
    cer, *_ = word_error_rate_detail(hypotheses, references, use_cer=True)
    return wer, cer, words


def _text(hypothesis: object) -> str:
    return hypothesis if isinstance(hypothesis, str) else hypothesis.text  # type: ignore[attr-defined]


def _score(entry: Any, hypothesis: str) -> Score:
    reference, hypothesis = composed(entry.text_raw), composed(hypothesis)
    wer = cer = None
    if reference.split():
        wer, *_ = word_error_rate_detail([hypothesis], [reference])
        cer, *_ = word_error_rate_detail([hypothesis], [reference], use_cer=True)
    return Score(entry.audio_file, entry.duration, reference, hypothesis, wer, cer)
