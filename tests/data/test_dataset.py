"""Utterances as a model is trained on them: what NeMo's own data sets give."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import soundfile
import torch
from nemo.collections.asr.models import ASRModel, EncDecCTCModel, EncDecCTCModelBPE
from omegaconf import OmegaConf, open_dict

from nemo_ds2_adapters.data.dataset import UtteranceDataset
from nemo_ds2_adapters.data.manifest import Utterance, read_manifest
from nemo_ds2_adapters.errors import InputError


def assert_like_nemo(model: ASRModel, manifest: Path, **section: object) -> None:
    """One batch of all, and each utterance alone."""
    with open_dict(model.cfg):
        model.cfg.train_ds = section
    given = {"manifest_filepath": str(manifest), "batch_size": 4, "shuffle": False, "sample_rate": 16000, **section}
    loader = model._setup_dataloader_from_config(OmegaConf.create(given))
    data = UtteranceDataset(read_manifest(manifest, "manifest"), model)
    assert len(data) == len(loader.dataset)
    for found, expected in zip(data.collate_fn(data[range(len(data))]), next(iter(loader))):
        assert found.dtype == expected.dtype and torch.equal(found, expected)
    for i in range(len(data)):
        signal, _, tokens, _ = loader.dataset[i]
        assert all(map(torch.equal, data[i], (signal, tokens)))


def rewritten(manifest: Path, path: Path, *texts: str) -> Path:
    lines = [line.fields for line in read_manifest(manifest, "manifest")]
    path.write_text("\n".join(json.dumps({**line, "text": text}) for line, text in zip(lines, texts)))
    return path


@pytest.mark.parametrize("section", [{}, {"parser": "en"}, {"normalize_transcripts": True}, {"parser": "base"}])
def test_characters(model, manifest: Path, tmp_path: Path, section: dict) -> None:
    assert_like_nemo(model, manifest, **section)
    texts = ("don't", "", "Mr. X", " é ") if "normalize_transcripts" in section else ("don't", "", "Mr. X, 5!", " é ")
    assert_like_nemo(model, rewritten(manifest, tmp_path / "m.json", *texts), **section)


def test_a_transcript_without_a_reading_is_named(model, manifest: Path) -> None:
    """NeMo's own leaves the utterance out, and the others change their places."""
    with open_dict(model.cfg):
        model.cfg.train_ds = {"normalize_transcripts": True}
    with pytest.raises(InputError, match=r"m.json, line 1: a.wav: the transcript 'Mr. X, 5!' cannot be normalised"):
        UtteranceDataset([Utterance(Path("a.wav"), "Mr. X, 5!", 1.0, place="m.json, line 1")], model)


@pytest.mark.parametrize(("form", "parser"), [("NFC", "nfc"), ("NFD", "nfd")])
def test_unicode_forms(model_config, manifest: Path, tmp_path: Path, form: str, parser: str) -> None:
    labels = sorted({" ", *unicodedata.normalize(form, "그말물이다안녕")})
    cfg = model_config(decoder={"vocabulary": labels})
    cfg.labels = labels
    texts = ("그 말", unicodedata.normalize("NFD", "물 이 다"), "안녕 x", "")
    korean = rewritten(manifest, tmp_path / "m.json", *texts)
    assert_like_nemo(EncDecCTCModel(cfg=cfg), korean, parser=parser)


@pytest.mark.parametrize("section", [{}, {"use_start_end_token": False}])
def test_sub_words(model_config, manifest: Path, tmp_path: Path, section: dict) -> None:
    (tmp_path / "text.txt").write_text("ab\nyes\nno a\none two\n" * 5)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=16,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        unk_id=0,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    (tmp_path / "vocab.txt").write_text("".join(f"{pieces.id_to_piece(i)}\n" for i in range(len(pieces))))
    cfg = model_config()
    del cfg.labels
    cfg.tokenizer = {"dir": str(tmp_path), "type": "bpe"}
    model = EncDecCTCModelBPE(cfg=cfg)
    assert (model.tokenizer.bos_id, model.tokenizer.pad_id) == (1, 3)
    assert_like_nemo(model, manifest, **section)
    assert_like_nemo(model, rewritten(manifest, tmp_path / "m.json", "one", "", "z", "ab no"), **section)


def test_channels_are_averaged(model, manifest: Path, tmp_path: Path) -> None:
    """NeMo's own gives `[T, 2]`, and pads that to `[T, T']`."""
    (utterance, *_) = read_manifest(manifest, "manifest")
    samples, rate = soundfile.read(utterance.audio, dtype="float32")
    soundfile.write(tmp_path / "a.wav", np.stack([samples, 3 * samples], axis=1), rate, "FLOAT")
    data = UtteranceDataset([Utterance(tmp_path / "a.wav", "ab", utterance.duration), utterance], model)
    signals, lengths, *_ = data.collate_fn([data.item(0), data.item(1)])
    assert signals.shape == (2, len(samples)) and lengths.tolist() == [len(samples)] * 2
    torch.testing.assert_close(signals[0], 2 * signals[1])


def test_recordings_that_cannot_be_read_are_named(model, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    data = UtteranceDataset([Utterance(tmp_path / "text.wav", "ab", 1.0, place="m.json, line 1")], model)
    with pytest.raises(InputError, match=r"m.json, line 1: text.wav cannot be read"):
        data.item(0)
