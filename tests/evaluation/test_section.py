"""Scores of a model on a manifest."""

import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
from omegaconf import OmegaConf

from nemo_ds2_adapters.evaluation.section import Score, total_score, transcribe_section


@pytest.fixture
def trainer() -> pl.Trainer:
    return pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)


def section(manifest: Path, **options: object):
    return OmegaConf.create({"manifest_filepath": str(manifest), "batch_size": 2, "shuffle": False, **options})


def test_scores_are_in_the_manifests_order_and_agree_with_transcribe(trainer, model, manifest: Path) -> None:
    for weight in (*model.encoder.layers.parameters(), *model.decoder.parameters()):
        weight.data.mul_(5)  # so that an untrained model says something, and not always the same
    model.freeze()
    scores = transcribe_section(trainer, model, section(manifest))
    entries = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [score.reference for score in scores] == [entry["text"] for entry in entries]
    alone = model.transcribe([entry["audio_filepath"] for entry in entries], batch_size=1, verbose=False)
    assert [score.hypothesis for score in scores] == [hypothesis.text for hypothesis in alone]
    assert len({score.hypothesis for score in scores}) > 1


def test_utterances_without_words_have_no_rate(trainer, model, manifest: Path, tmp_path: Path) -> None:
    entry = json.loads(manifest.read_text().splitlines()[0])
    (tmp_path / "m.json").write_text(json.dumps({**entry, "text": ""}) + "\n" + json.dumps(entry) + "\n")
    first, second = transcribe_section(trainer, model.eval(), section(tmp_path / "m.json"))
    assert (first.wer, first.cer) == (None, None)
    assert second.wer is not None


def test_totals_weigh_words_not_utterances() -> None:
    scores = [Score("a", 1.0, "a b c d", "a b c d", 0.0, 0.0), Score("b", 1.0, "x", "y z", 2.0, 3.0)]
    wer, cer, words = total_score(scores)
    assert wer == pytest.approx(2 / 5) and words == 5
    assert cer == pytest.approx(3 / 8)
