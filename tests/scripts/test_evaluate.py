"""eval_asr_adapter.py on what an unlucky day brings: outputs over inputs, broken models, manifests and recordings."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import DictConfig, OmegaConf
from torch import nn

from nemo_ds2_adapters import AdapterStore, add_adapter
from nemo_ds2_adapters.configs import shipped_config
from tests.data.test_manifest import WRONG_LINES

EVALUATE = "asr_adapters/eval_asr_adapter.py"


@pytest.fixture
def evaluation(make_model, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DictConfig:
    """Evaluates the base on the recordings; tests spoil one thing. The model also has an adapter, `ann`."""
    model = make_model()
    add_adapter(model, "ann", {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [4]})
    for name, parameter in model.named_parameters():
        if "layers." in name or "adapter" in name or "output" in name:
            nn.init.normal_(parameter)
    model.save_to(str(tmp_path / "model.nemo"))
    lines = [{**json.loads(line), "speaker": "ann"} for line in manifest.read_text().splitlines()]
    for line in lines:
        shutil.copy(line["audio_filepath"], tmp_path)
        line["audio_filepath"] = Path(line["audio_filepath"]).name
    (tmp_path / "test.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    monkeypatch.chdir(tmp_path)
    cfg = shipped_config("asr_adapters/asr_evaluation")
    cfg.model.nemo_model = str(tmp_path / "model.nemo")
    cfg.model.adapter.adapter_name = None
    cfg.model.test_ds.manifest_filepath = str(tmp_path / "test.json")
    cfg.trainer.enable_progress_bar = False
    return cfg


def error_of(call_script, cfg: DictConfig) -> str:
    with pytest.raises(SystemExit) as end:
        call_script(EVALUATE, cfg)
    message = end.value.code
    assert isinstance(message, str) and message.startswith("error: ") and message.isprintable()
    return message


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("key", [None, "speaker"])
@pytest.mark.parametrize("output", ["test.json", "link.json", "model.nemo", "utterance0.wav", "folder/../test.json"])
def test_no_output_is_an_input(call_script, evaluation: DictConfig, tmp_path: Path, output: str, key) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.json").symlink_to("test.json")
    evaluation.output_filename = output
    if key:
        evaluation.model.adapter.adapter_name = "???"
        evaluation.model.adapter.adapter_key = key
    before = contents(tmp_path)
    assert "write to another path" in error_of(call_script, evaluation) or (output.endswith("json") and key)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("output", "message"), [
    ("test.jsonl", "test.json would overwrite model.test_ds.manifest_filepath="),  # its report in JSON
    ("model.csv", "expected another ending than .csv, a report has it"),
])  # fmt: skip
def test_no_report_is_an_input(call_script, evaluation: DictConfig, tmp_path: Path, output: str, message: str) -> None:
    evaluation.model.adapter.adapter_name = "???"
    evaluation.model.adapter.adapter_key = "speaker"
    evaluation.output_filename = output
    before = contents(tmp_path)
    assert message in error_of(call_script, evaluation)
    assert contents(tmp_path) == before


def repacked(model: Path, change) -> None:
    """The archive, its folder changed by a function."""
    folder = model.parent / "unpacked"
    with tarfile.open(model) as archive:
        archive.extractall(folder, filter="data")
    change(folder)
    with tarfile.open(model, "w") as archive:
        archive.add(folder, ".")
    shutil.rmtree(folder)


def truncate(folder: Path) -> None:
    weights = folder / "model_weights.ckpt"
    weights.write_bytes(weights.read_bytes()[:1000])


def widen(folder: Path) -> None:
    cfg = OmegaConf.load(folder / "model_config.yaml")
    cfg.encoder.d_model = 16
    OmegaConf.save(cfg, folder / "model_config.yaml")


def name_foreign_class(folder: Path) -> None:
    cfg = OmegaConf.load(folder / "model_config.yaml")
    cfg.decoder._target_ = "evilmod.X"
    OmegaConf.save(cfg, folder / "model_config.yaml")


@pytest.mark.parametrize("spoil", [
    truncate,
    widen,
    name_foreign_class,
    lambda folder: (folder / "model_config.yaml").write_text("encoder: [\n"),
    lambda folder: (folder / "model_weights.ckpt").unlink(),
    lambda folder: (folder / "model_weights.ckpt").write_bytes(b"cos\nsystem\n(S'touch evil'\ntR."),
], ids=["truncated", "shapes", "foreign", "yaml", "no weights", "pickle"])  # fmt: skip
def test_a_broken_model_is_one_line(call_script, evaluation: DictConfig, tmp_path: Path, spoil) -> None:
    repacked(tmp_path / "model.nemo", spoil)
    before = contents(tmp_path)
    assert "model.nemo: " in error_of(call_script, evaluation)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("line", WRONG_LINES)
def test_a_wrong_line_is_named(call_script, evaluation: DictConfig, tmp_path: Path, line: str) -> None:
    shutil.copy(tmp_path / "utterance0.wav", tmp_path / "a.wav")
    with (tmp_path / "test.json").open("a") as file:
        file.write(line)
    assert "test.json, line 5: " in error_of(call_script, evaluation)
    assert not list(tmp_path.glob("eval*"))


def test_samples_that_are_not_finite(call_script, evaluation: DictConfig, tmp_path: Path) -> None:
    samples = np.full(8000, 0.1)
    samples[77] = np.nan
    soundfile.write(tmp_path / "utterance0.wav", samples, 16000, "FLOAT")
    assert "line 1: utterance0.wav has samples that are not finite" in error_of(call_script, evaluation)


def test_stereo_and_a_single_sample(call_script, evaluation: DictConfig, tmp_path: Path, capsys) -> None:
    samples, rate = soundfile.read(tmp_path / "utterance1.flac")
    soundfile.write(tmp_path / "utterance1.flac", np.stack([samples, samples], axis=1), rate)
    soundfile.write(tmp_path / "utterance0.wav", [0.5], 16000)
    call_script(EVALUATE, evaluation)
    lines = [json.loads(line) for line in (tmp_path / "eval_base.jsonl").read_text("utf-8").splitlines()]
    assert [line["reference"] for line in lines] == ["ab", "yes", "no a", "one two"]
    shown = capsys.readouterr().out
    assert "shorter than the manifest says: 1 of 4, for example utterance0.wav" in shown
    assert "base: WER " in shown and "4 utterances, 6 words" in shown


def test_names_do_not_reach_the_terminal_raw(call_script, evaluation: DictConfig, tmp_path: Path, capsys) -> None:
    model = EncDecCTCModel.restore_from(evaluation.model.nemo_model, map_location="cpu")
    name = "\x1b[31mann\u202e"
    store = AdapterStore(tmp_path / "store")
    for user in (name, "ann"):
        store.put(user, model, "ann")
    evaluation.adapter_store = str(tmp_path / "store")
    lines = [json.loads(line) for line in (tmp_path / "test.json").read_text().splitlines()]
    (tmp_path / "\x1b[2Ja.wav").write_bytes((tmp_path / "utterance0.wav").read_bytes())
    lines[0] |= {"audio_filepath": "\x1b[2Ja.wav", "duration": 50}
    text = "".join(
        f"{json.dumps({**line, 'speaker': user})}\n" for line, user in zip(lines, (name, "ann", name, "ann"))
    )
    (tmp_path / "test.json").write_text(text)
    evaluation.model.adapter.adapter_name = "???"
    evaluation.model.adapter.adapter_key = "speaker"
    call_script(EVALUATE, evaluation)
    shown = capsys.readouterr()
    files = [(tmp_path / f"eval_users.{ending}").read_text("utf-8") for ending in ("json", "jsonl", "csv")]
    for output in (shown.out, *files):
        assert "ann\\u202e" in output and output.replace("\n", "").isprintable()
    assert "\\x1b[2Ja.wav" in shown.out


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainer.precision", "8", "trainer: Precision '8' is invalid"),
        (
            "trainer.precision",
            "bf16-true",
            "trainer.precision=bf16-true: expected 32-true, 64-true, 16-mixed or bf16-mixed",
        ),
        ("trainer.accelerator", "abacus", "trainer: You selected an invalid accelerator name"),
        ("trainer.devices", 2, "trainer.devices=2: this runs on one device"),
        ("model.test_ds.batch_size", 0, "batch_size=0: expected a whole number"),
        ("model.test_ds.max_duration", 1.0, "model.test_ds.max_duration: evaluation takes every utterance as it is"),
        ("model.adapter.adapter_name", "bob", "adapter_name=bob: the model has no such adapter, its adapters are ann"),
        ("output_filename", "test.json/out.jsonl", "test.json/out.jsonl: cannot be written"),
    ],
)
def test_wrong_settings(call_script, evaluation: DictConfig, key: str, value: object, message: str) -> None:
    OmegaConf.update(evaluation, key, value, force_add=True)
    assert message in error_of(call_script, evaluation)


@pytest.mark.parametrize("precision", [64, "64-true", "bf16-mixed"])
def test_precision(call_script, evaluation: DictConfig, tmp_path: Path, precision: object) -> None:
    evaluation.trainer.precision = precision
    call_script(EVALUATE, evaluation)
    assert len((tmp_path / "eval_base.jsonl").read_text("utf-8").splitlines()) == 4
