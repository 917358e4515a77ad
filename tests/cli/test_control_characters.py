"""No command shows, or writes into a report, a control character that came from data."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_ds2_adapters.cli import main

ESCAPES = "\x1b[31mred\x07\u202e"
MODEL, TRAIN_DATA = "model.nemo_model=base.nemo", "model.train_ds.manifest_filepath=people.json"
VALIDATION_DATA, ONE_EPOCH = "model.validation_ds.manifest_filepath=people.json", "trainer.max_epochs=1"
QUIET = "trainer.enable_progress_bar=false"
SMALL = ["model.encoder.n_layers=1", "model.encoder.d_model=4", "model.encoder.conv_channels=[2,2]"]
SEARCH = ["--multirun", "--config-name=asr_adaptation_grid", "search.base_manifest=people.json"]
SEARCH += [f"model.adapter.mlp.{key}" for key in ("layers=first", "hidden_dims=[4]")]
SEARCH += ["model.optim.lr=0.001,0.002", "model.adapter.kl_weight=0"]
CALLS = {
    "train": [MODEL, TRAIN_DATA, VALIDATION_DATA, ONE_EPOCH, QUIET, f"model.adapter.user_id='{ESCAPES}'"],
    "adapt-speakers": [MODEL, TRAIN_DATA, ONE_EPOCH, "adapter_store=store", "model.adapter.prior=off"],
    "fit-prior": [MODEL, TRAIN_DATA, "prior.epochs=1", "prior.folds=2"],
    "eval": [MODEL, "model.test_ds.manifest_filepath=people.json", "model.adapter.adapter_name=null"],
    "transcribe": ["model_path=base.nemo", "dataset_manifest=people.json", "output_filename=out.json"],
    "search": [*SEARCH, MODEL, TRAIN_DATA, VALIDATION_DATA, ONE_EPOCH],
    "train-base": [TRAIN_DATA, VALIDATION_DATA, ONE_EPOCH, QUIET, *SMALL],
}


@pytest.fixture
def folder(make_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run: its name, those of the speakers and of the recordings, and a field are what data can be."""
    folder = tmp_path / ESCAPES
    folder.mkdir()
    make_model(adapters=False).save_to(str(folder / "base.nemo"))
    random = np.random.default_rng(0)
    lines = []
    for i in range(18):
        name = f"{ESCAPES}{i}.wav"
        soundfile.write(folder / name, 0.1 * random.standard_normal(8000 + 10 * i), 16000)
        # A duration that is wrong gives a line on the screen.
        line = {"audio_filepath": name, "duration": 0.9, "text": "yes", "speaker": f"{i % 6}{ESCAPES}", "x": ESCAPES}
        lines.append(line)
    (folder / "people.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("command", CALLS)
def test_nothing_raw(folder: Path, capfd: pytest.CaptureFixture[str], command: str) -> None:
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        main([command, *CALLS[command]])
    logging.disable(logging.NOTSET)
    out, err = capfd.readouterr()
    assert not end.value.code, err
    reports = [path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".csv") and path.is_file()]
    written = [path.read_text("utf-8") for path in reports if path.name != "people.json"]
    assert written or command in ("train", "fit-prior", "train-base")
    for text in (out, err.replace("\r", "").replace("\x1b[A", ""), *written):  # tqdm's bars go up and to the left
        assert [line for line in text.splitlines() if not line.isprintable()] == []
    if command not in ("fit-prior", "search"):
        assert r"\x1b[31mred" in out + err + "".join(written) or r"\u001b[31mred" in "".join(written)
