"""Many speakers in one run: each gets what it would get alone, and nobody is harmed by the others."""

import json
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import soundfile
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo_ds2_adapters.adaptation.speakers.report import SpeakerResult, table, write_reports
from nemo_ds2_adapters.adaptation.speakers.run import adapt_speakers
from omegaconf import open_dict

from nemo_ds2_adapters.adaptation.adapt import adapt, config_with
from nemo_ds2_adapters.adapters.blocks import adapter_parts
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.adapters.lifecycle import list_adapters
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.store.store import AdapterStore

SPEAKERS = ("anna@example.com", "홍길동", "b/c")
SETTINGS = {
    "batch_size": 2,
    "max_epochs": 3,
    "lr": 0.01,
    "hidden_dims": [4],
    "layers": "all",
    "accelerator": "cpu",
    "precision": "64-true",
    "enable_progress_bar": False,
}


def write_manifest(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    return path


@pytest.fixture
def lines(tmp_path: Path) -> list[dict]:
    """Five recordings of noise per speaker, speakers taking turns."""
    random = np.random.default_rng(0)
    found = []
    for i in range(5):
        for k, speaker in enumerate(SPEAKERS):
            seconds = 0.5 + 0.1 * i + 0.05 * k
            path = tmp_path / f"{k}_{i}.wav"
            soundfile.write(path, 0.1 * random.standard_normal(round(seconds * 16000)), 16000)
            text = ("ab", "yes", "no a", "one two", "a b c")[i]
            found.append({"audio_filepath": str(path), "duration": seconds, "text": text, "speaker": speaker})
    return found


@pytest.fixture
def accept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise teaches nothing; let every adapter pass, so that weights can be compared."""
    monkeypatch.setattr("nemo_ds2_adapters.adaptation.cross_validation.LEAST_WORDS", -1000)
    monkeypatch.setattr("nemo_ds2_adapters.adaptation.cross_validation._is_beyond_chance", lambda differences: True)


@pytest.fixture
def run(make_model, tmp_path: Path) -> Callable[..., list[SpeakerResult]]:
    def adapt_all(manifest: Path, store: AdapterStore, **settings: object) -> list[SpeakerResult]:
        adapter = {key: settings.pop(key) for key in ("users_at_once", "keep_activations") if key in settings}
        max_duration = settings.pop("max_duration", None)
        cfg = config_with({**SETTINGS, **settings})
        with open_dict(cfg):
            cfg.model.train_ds.update(manifest_filepath=str(manifest), max_duration=max_duration)
        cfg.model.adapter.update(adapter)
        model = make_model()
        before = fingerprint(model.double())
        results = adapt_speakers(cfg, pl.Trainer(**cfg.trainer), model, store)
        assert list_adapters(model) == [] and fingerprint(model) == before
        return results

    return adapt_all


def weights(model: EncDecCTCModel, name: str) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for _, part in adapter_parts(model, name) for p in part.parameters()])


def stored_weights(make_model, store: AdapterStore, user_id: str) -> torch.Tensor:
    model = make_model().double()
    return weights(model, store.load_into(model, user_id))


def test_each_as_alone(make_model, run, accept, lines: list[dict], tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    results = run(write_manifest(tmp_path / "all.json", lines), store, users_at_once=2)
    assert [r.user for r in results] == list(SPEAKERS) and {r.status for r in results} == {"trained"}
    assert sorted(store.list()) == sorted(SPEAKERS)
    for result in results:
        own = write_manifest(tmp_path / "own.json", [line for line in lines if line["speaker"] == result.user])
        alone = make_model()
        reached = adapt(alone, "alone", own, exp_dir=str(tmp_path / "alone"), **SETTINGS)
        assert (result.epochs, result.wer_before, result.wer_after) == (
            reached.epochs,
            reached.wer_before,
            reached.wer_after,
        )
        found = stored_weights(make_model, store, result.user)
        torch.testing.assert_close(found, weights(alone, "alone"), rtol=1e-4, atol=1e-8)
        about = store.get(result.user).metadata
        assert about["wer_after"] == result.wer_after and about["seconds_of_speech"] == pytest.approx(result.seconds)
        assert about["training"]["batch_size"] == 2


def test_finished_users_are_not_repeated(run, accept, lines: list[dict], tmp_path: Path, make_model) -> None:
    store = AdapterStore(tmp_path / "store")
    some = [line for line in lines if line["speaker"] != SPEAKERS[2]]
    first = run(write_manifest(tmp_path / "some.json", some), store)
    before = stored_weights(make_model, store, SPEAKERS[0])
    second = run(write_manifest(tmp_path / "all.json", lines), store)
    assert [r.status for r in second] == ["finished before", "finished before", "trained"]
    assert [(r.wer_before, r.wer_after, r.epochs) for r in second[:2]] == [
        (r.wer_before, r.wer_after, r.epochs) for r in first
    ]
    assert len(store.versions(SPEAKERS[0])) == 1

    grown = [line for line in lines if line not in some[:1]]  # other data of the first speaker
    third = run(write_manifest(tmp_path / "grown.json", grown), store)
    assert {r.user: r.status for r in third} == {
        s: "updated" if s == SPEAKERS[0] else "finished before" for s in SPEAKERS
    }
    assert len(store.versions(SPEAKERS[0])) == 2
    after = stored_weights(make_model, store, SPEAKERS[0])
    assert 0 < float((after - before).norm()) < float(before.norm())
    assert [r.status for r in run(tmp_path / "all.json", store, lr=0.02)] == ["updated"] * 3  # other settings


def test_bad_data_of_one_speaker_is_nobody_elses_problem(run, lines: list[dict], tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    broken = [
        {**lines[0], "speaker": "missing file", "audio_filepath": "nowhere.wav"},
        {**lines[0], "speaker": "no audio", "audio_filepath": str(tmp_path / "broken.wav")},
        {**lines[1], "speaker": "no audio"},
        {**lines[0], "speaker": "letters", "text": "Ärger"},
        {**lines[1], "speaker": "letters"},
        {**lines[0], "speaker": "once"},
        {**lines[0], "speaker": "twice"},
        {**lines[0], "speaker": "twice"},
    ]
    results = run(write_manifest(tmp_path / "all.json", [*broken, *lines]), store)
    problems = {r.user: r.problem for r in results if r.problem}
    assert set(problems) == {"missing file", "no audio", "letters", "once", "twice"}
    assert "nowhere.wav does not exist" in problems["missing file"] and "line 1" in problems["missing file"]
    assert "cannot be read as audio" in problems["no audio"] and "'Ä'" in problems["letters"]
    assert "at least 2" in problems["once"] and "twice" in problems["twice"]
    assert sorted(store.list()) == sorted(SPEAKERS)
    assert {r.status for r in results if not r.problem} == {"base kept"}  # noise teaches nothing

    write_reports(results, tmp_path / "report")
    assert len(json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))["users"]) == 8
    assert len((tmp_path / "report" / "report.csv").read_text("utf-8").splitlines()) == 9
    assert (tmp_path / "report" / "report.png").stat().st_size > 10_000
    assert table(results).row_count == 8


def test_too_little_is_left_by_max_duration(run, lines: list[dict], tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    results = run(write_manifest(tmp_path / "all.json", lines), store, max_duration=0.62)
    problems = {r.user: r.problem for r in results}
    assert problems[SPEAKERS[2]] == "1 of 5 utterances left by max_duration"
    assert list(store.list()) == [user for user, problem in problems.items() if problem is None] == [SPEAKERS[0]]


def test_kept_activations_go_with_the_user(run, lines: list[dict], tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    manifest = write_manifest(tmp_path / "all.json", lines)
    run(manifest, store, keep_activations=True)
    files = [list(store.cache_folder(user).iterdir()) for user in SPEAKERS]
    assert [len(found) for found in files] == [5, 5, 5]
    store.erase(SPEAKERS[0])
    assert not any(path.exists() for path in files[0]) and all(path.exists() for path in files[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, "model.adapter.folds=1: at least 2"),
        ({"users_at_once": 0}, "model.adapter.users_at_once=0: expected at least 1"),
        ({"cache_dir": "somewhere"}, "set model.adapter.keep_activations=true instead"),
        ({"unfreeze_base": True}, "are for one adapter"),
        ({"precision": "bf16-mixed"}, "trainer.precision=bf16-mixed: many speakers are adapted in 32-true or 64-true"),
    ],
)
def test_settings_that_do_not_fit(run, lines: list[dict], tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(write_manifest(tmp_path / "all.json", lines), AdapterStore(tmp_path / "store"), **settings)


def test_a_speaker_that_is_not_text(run, lines: list[dict], tmp_path: Path) -> None:
    lines[3]["speaker"] = 123
    with pytest.raises(InputError, match=r"all.json, line 4: speaker=123, expected text that names a user"):
        run(write_manifest(tmp_path / "all.json", lines), AdapterStore(tmp_path / "store"))


def test_a_line_without_speaker(run, lines: list[dict], tmp_path: Path) -> None:
    del lines[3]["speaker"]
    with pytest.raises(InputError, match=r"all.json, line 4: no field 'speaker'; set model.adapter.speaker_key"):
        run(write_manifest(tmp_path / "all.json", lines), AdapterStore(tmp_path / "store"))
