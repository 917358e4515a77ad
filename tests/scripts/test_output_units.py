"""Base model, adapter and evaluation with each kind of output units, from Korean or English transcripts."""

import json
import unicodedata
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from nemo.collections.asr.models import ASRModel, EncDecCTCModel
from omegaconf import DictConfig, open_dict

from nemo_ds2_adapters.base_training.fit import frequent_characters
from nemo_ds2_adapters.data.manifest import Utterance

CONFIGS = Path(__file__).parents[2] / "conf" / "deepspeech2"
BASE, TRAIN, EVALUATE = (
    "asr_ctc/train_deepspeech2.py",
    "asr_adapters/train_asr_adapter.py",
    "asr_adapters/eval_asr_adapter.py",
)
KOREAN = ("그 말", "물 이 다", "안녕 하세요", "네 네")
TINY = [
    "model.encoder.n_layers=1", "model.encoder.d_model=8", "model.encoder.conv_channels=[2]",
    "model.train_ds.batch_size=2", "model.train_ds.num_workers=0", "model.validation_ds.num_workers=0",
    "model.optim.sched.warmup_steps=1", "trainer.max_epochs=1", "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu", "exp_manager.create_tensorboard_logger=false",
]  # fmt: skip


@pytest.fixture
def korean_manifest(manifest: Path, tmp_path: Path) -> Path:
    """The recordings with Korean transcripts, every second one in another Unicode form."""
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for i, (line, text) in enumerate(zip(lines, KOREAN, strict=True)):
        line["text"] = unicodedata.normalize("NFD" if i % 2 else "NFC", text)
    path = tmp_path / "korean.json"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def train_base(call_script, tmp_path: Path):
    """Train a tiny base model with a shipped config, in this process."""

    def train(config_name: str, manifest: Path, *overrides: str) -> Path:
        with initialize_config_dir(str(CONFIGS), version_base=None):
            cfg = compose(config_name, [
                *TINY, f"model.train_ds.manifest_filepath={manifest}",
                f"model.validation_ds.manifest_filepath={manifest}",
                f"exp_manager.exp_dir={tmp_path}", "name=base", *overrides,
            ])  # fmt: skip
        call_script(BASE, cfg)
        return tmp_path / "base" / "checkpoints" / "base.nemo"

    return train


@pytest.fixture
def adapt_and_evaluate(call_script, config: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Train an adapter and evaluate it, in this process; the lines of the evaluation."""

    def run(base: Path, manifest: Path) -> list[dict]:
        monkeypatch.chdir(tmp_path)
        with open_dict(config):
            config.model.nemo_model = str(base)
            config.trainer.enable_progress_bar = False
            config.exp_manager.version = "run"
            for section in ("train_ds", "validation_ds", "test_ds"):
                config.model[section].manifest_filepath = str(manifest)
                config.model[section].num_workers = 0
        call_script(TRAIN, config.copy())
        (adapted,) = (tmp_path / "experiments").rglob("*.nemo")
        config.model.nemo_model = str(adapted)
        call_script(EVALUATE, config)
        return [json.loads(line) for line in (tmp_path / "eval_user_john.jsonl").read_text("utf-8").splitlines()]

    return run


def test_syllables(train_base, adapt_and_evaluate, korean_manifest: Path) -> None:
    base = train_base("deepspeech2_syllables", korean_manifest)
    model = ASRModel.restore_from(str(base), map_location="cpu")
    assert list(model.decoder.vocabulary) == [" ", "네", *sorted("그말물이다안녕하세요")]
    lines = adapt_and_evaluate(base, korean_manifest)
    assert [line["reference"] for line in lines] == list(KOREAN)


def test_two_thousand_syllables() -> None:
    alphabet = [chr(ord("가") + i) for i in range(2100)]
    transcripts = ["".join(alphabet), unicodedata.normalize("NFD", "".join(alphabet[:1999])), " " * 3]
    utterances = [Utterance(Path("a.wav"), text, 1.0) for text in transcripts]
    with initialize_config_dir(str(CONFIGS), version_base=None):
        cfg = compose("deepspeech2_syllables", TINY)
    cfg.labels = frequent_characters(utterances, cfg.max_labels)
    assert cfg.labels == [" ", *alphabet[:1999]]
    cfg.model.train_ds = cfg.model.validation_ds = None
    model = EncDecCTCModel(cfg=cfg.model)
    assert model.decoder.num_classes_with_blank == 2001 and list(model.decoder.vocabulary) == list(cfg.labels)


def test_graphemes(train_base, adapt_and_evaluate, korean_manifest: Path) -> None:
    base = train_base("deepspeech2_graphemes", korean_manifest)
    model = ASRModel.restore_from(str(base), map_location="cpu")
    assert model.decoder.num_classes_with_blank == 1 + 19 + 21 + 27 + 1
    assert model.decoder.vocabulary[1] == "\u1100"  # an initial letter
    lines = adapt_and_evaluate(base, korean_manifest)
    assert [line["reference"] for line in lines] == list(KOREAN)
    assert all(unicodedata.is_normalized("NFC", line["hypothesis"]) for line in lines)


def test_subwords(train_base, adapt_and_evaluate, manifest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    base = train_base(
        "deepspeech2_bpe",
        manifest,
        f"model.tokenizer.dir={folder}",
        "tokenizer_vocab_size=14",
        "model.encoder.dropout=0",
    )
    made = (folder / "tokenizer.model").read_bytes()
    model = ASRModel.restore_from(str(base), map_location="cpu")
    assert type(model).__name__ == "EncDecCTCModelBPE" and model.decoder.num_classes_with_blank == 15
    assert model.tokenizer.ids_to_text(model.tokenizer.text_to_ids("one two")) == "one two"
    lines = adapt_and_evaluate(base, manifest)
    assert [line["reference"] for line in lines] == [json.loads(x)["text"] for x in manifest.read_text().splitlines()]
    train_base("deepspeech2_bpe", manifest, f"model.tokenizer.dir={folder}", "name=again")
    assert (folder / "tokenizer.model").read_bytes() == made


def test_wrong_units(train_base, korean_manifest: Path, manifest: Path, tmp_path: Path) -> None:
    def error(*arguments: object) -> str:
        with pytest.raises(SystemExit) as end:
            train_base(*arguments)
        return str(end.value.code)

    assert "Unicode form NFD" in error("deepspeech2_graphemes", korean_manifest, 'labels=["가"," "]')
    assert "outside the model's vocabulary" in error("deepspeech2_syllables", korean_manifest, "max_labels=3")
    assert "tokenizer_vocab_size=3 does not fit" in error(
        "deepspeech2_bpe", manifest, f"model.tokenizer.dir={tmp_path / 't'}", "tokenizer_vocab_size=3"
    )
    named = manifest.with_name("vocab.txt")
    named.write_bytes(manifest.read_bytes())
    assert "would overwrite" in error(
        "deepspeech2_bpe", named, f"model.tokenizer.dir={named.parent}", "tokenizer_vocab_size=14"
    )
    assert named.read_bytes() == manifest.read_bytes() and not (named.parent / "tokenizer.model").exists()
