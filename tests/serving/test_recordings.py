"""Recordings are kept for as long as it was said, and trainings that cannot be read stop nobody."""

import json
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import pytest
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters import AdapterStore
from nemo_ds2_adapters.data.manifest import read_manifest
from nemo_ds2_adapters.serving import recordings
from nemo_ds2_adapters.serving.metrics import Metrics
from nemo_ds2_adapters.serving.recordings import DAY, Recordings
from nemo_ds2_adapters.serving.refusal import Refusal
from nemo_ds2_adapters.serving.training.job import Job
from nemo_ds2_adapters.serving.training.jobs import FILE, Jobs


def noise(seed: int, seconds: float = 1.0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(16000 * seconds))).astype(np.float32)


@pytest.mark.parametrize(("days", "kept"), [(0.0, 1), (3.0, 2), (float("inf"), 3)])
def test_old_ones_go(
    model: EncDecCTCModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float, kept: int
) -> None:
    store = AdapterStore(tmp_path / "store")
    one = Recordings(store, model, days)
    now = recordings.time.time()
    for age in (4.0, 2.0, 0.5):
        monkeypatch.setattr(recordings.time, "time", lambda age=age: now - age * DAY)
        one.add("ann", noise(int(10 * age)), "yes")
    monkeypatch.setattr(recordings.time, "time", lambda: now)
    for folder in one.old():
        one.remove_old(folder)
    assert len(one.of("ann")) == kept
    assert list(one.old()) == []
    files = {path.name for path in (store.cache_folder("ann") / recordings.FOLDER).iterdir()}
    assert files == {recordings.MANIFEST, *(recording.path.name for recording in one.of("ann"))}


@pytest.mark.parametrize(("days", "kept"), [(0.0, [3]), (1.0, [1, 2, 3])])
def test_what_was_trained_of_goes_unless_it_is_kept(
    model: EncDecCTCModel, tmp_path: Path, days: float, kept: list[int]
) -> None:
    one = Recordings(AdapterStore(tmp_path / "store"), model, days)
    for seed in range(3):
        one.add("ann", noise(seed), "yes")
    one.trained("ann", {1, 2})
    assert [recording.number for recording in one.of("ann")] == kept


def test_they_are_a_manifest(model: EncDecCTCModel, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    one = Recordings(store, model, 1.0)
    one.add("ann", noise(0), " no   a ")
    (utterance,) = read_manifest(store.cache_folder("ann") / recordings.FOLDER / recordings.MANIFEST, "manifest")
    assert (utterance.text, utterance.duration, utterance.audio.name) == ("no a", 1.0, "0001.flac")
    one.add("ann", noise(0), "yes")  # the same recording with a text that was corrected
    assert [recording.text for recording in one.of("ann")] == ["yes"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "store").rglob("*"))


def test_too_much(model: EncDecCTCModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "MOST_SECONDS", 1.5)
    one = Recordings(AdapterStore(tmp_path / "store"), model, 1.0)
    one.add("ann", noise(0), "yes")
    with pytest.raises(Refusal, match="more than 1.5 s"):
        one.add("ann", noise(1), "yes")


class NoWorker:
    """In place of the process that trains: these tests have nothing to train."""

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def train(self, *_: Any) -> dict[str, Any]:
        raise AssertionError("nothing is to be trained")


def test_trainings_that_cannot_be_read_or_done(model: EncDecCTCModel, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    (store.cache_folder("ann") / FILE).write_text("{")
    (store.cache_folder("bob") / FILE).write_text(json.dumps({"user": "bob"}))
    later = {**vars(Job("carla")), "state": "running"}
    (store.cache_folder("carla") / FILE).write_text(json.dumps(later))  # whose recordings have gone
    jobs = Jobs(store, Recordings(store, model, 0.0), NoWorker(), RLock(), Metrics())  # type: ignore[arg-type]
    while not jobs.get(later["id"]).is_over:
        pass
    assert (jobs.of("ann"), jobs.of("bob")) == (None, None)
    failed = jobs.get(later["id"])
    assert (failed.state, failed.problem) == (
        "failed",
        {"code": "input", "detail": "0 recordings of this user, at least 2 are needed"},
    )
    jobs.close()
    assert json.loads((store.cache_folder("carla") / FILE).read_text())["state"] == "failed"
