"""Speakers adapted by the workers of a cluster: as on one machine, and whoever is killed, everybody once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("ray", reason="the extra [ray] is not installed")

from benchmarks.processes import titled
from nemo_ds2_adapters.adaptation.lightning_fit import one_device_trainer, place
from nemo_ds2_adapters.adaptation.many_speakers import adapt_speakers
from nemo_ds2_adapters.adaptation.plan import Plan
from nemo_ds2_adapters.adaptation.report import SpeakerResult
from nemo_ds2_adapters.adaptation.settings import PriorSettings, Settings
from nemo_ds2_adapters.adaptation.start import new_adapter
from nemo_ds2_adapters.adaptation.voice_prior.fit_prior import learn_by_parts
from nemo_ds2_adapters.adaptation.voice_prior.prior import Experience, Step, VoicePrior, save_prior
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.cluster.adapt import adapt_manifests, learning, workers_of
from nemo_ds2_adapters.cluster.pool import Pool
from nemo_ds2_adapters.cluster.results import read_results
from nemo_ds2_adapters.cluster.settings import ClusterSettings
from nemo_ds2_adapters.cluster.shards import Shards
from nemo_ds2_adapters.cluster.worker import Base, Source
from nemo_ds2_adapters.data.speakers import read_speakers
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from nemo_ds2_adapters.store.store import AdapterStore

CHECKOUT = Path(__file__).parents[2]
MODEL = CHECKOUT / "tests" / "data" / "v0_1" / "model.nemo"  # it writes " abc"
MLP = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [4], "layers": "all"}
TRAINER = {"accelerator": "cpu", "devices": 1, "precision": "64-true", "logger": False, "enable_checkpointing": False}
SETTINGS = Settings({"name": "adamw", "lr": 0.01})
QUICK = PriorSettings(epochs=2, lr=0.01, batch_size=4, folds=2, person_epochs=(1, 2))
USERS, USERS_AT_ONCE = 16, 3
ROUNDING = 1e-6  # of weights in fp64: 7e-8 between groups of 1, 2 and 3 users; an epoch more or less makes 2e-2
EPOCHS = 30  # of the prior's recipe, so that there is time to kill somebody


@dataclass(frozen=True)
class Run:
    """A base, people, and workers that adapt them."""

    model: Any
    pool: Pool
    manifest: Path
    prior: VoicePrior
    folder: Path

    def adapt(self, store: str, **options: Any) -> list[SpeakerResult]:
        folder = self.folder / f"{store}-{time.monotonic_ns()}"
        folder.mkdir()
        AdapterStore(self.folder / store)
        shards = Shards(str(self.manifest), "manifest", "speaker", folder)
        source = Source(str(self.folder / store), shards.manifests, "speaker", {})
        options = {"users_at_once": USERS_AT_ONCE, "key": "manifest", "say": lambda line: None, **options}
        start = new_adapter(self.model, "speaker", MLP, 0)
        plan = partial(Plan.of, fingerprint(self.model), SETTINGS, start, **options)
        adapt_manifests(self.pool, self.model, shards, source, plan, folder / "report.parquet")
        return list(read_results(folder / "report.parquet"))

    def adapt_here(self, store: str, **options: Any) -> list[SpeakerResult]:
        speakers, _ = read_speakers(str(self.manifest), "manifest", "speaker")
        start = new_adapter(self.model, "speaker", MLP, 0)
        options = {"users_at_once": USERS_AT_ONCE, **options}
        return adapt_speakers(
            self.model, speakers, AdapterStore(self.folder / store), SETTINGS, start, key="manifest", **options
        )

    def adapters(self, store: str) -> dict[str, Adapter]:
        found = AdapterStore(self.folder / store, create=False)
        assert {len(found.versions(user)) for user in found.list()} <= {1}  # nobody was trained twice
        return {user: found.get(user) for user in found.list()}


@pytest.fixture(scope="module")
def run(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("people")
    random = np.random.default_rng(0)
    lines = []
    for i, text in enumerate(("ab", "cab", "b a", "ba ca", "a b c")):
        for number in range(USERS):
            seconds = 0.5 + 0.1 * i + 0.01 * number
            path = folder / f"{number}_{i}.wav"
            soundfile.write(path, 0.1 * random.standard_normal(round(seconds * 16000)), 16000)
            lines.append({"audio_filepath": path.name, "duration": seconds, "text": text, "speaker": f"user {number}"})
    lines[USERS + 1]["text"] = "wrong"  # of user 1
    manifest = folder / "people.json"
    manifest.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    model = restore_model(str(MODEL), None)
    place(model, one_device_trainer(TRAINER))
    record = tuple(Experience(0, 3.0, 20, 20 + i % 3, 18, 40, 40 + i % 2, 30, 20) for i in range(12))
    step = Step(3.0, EPOCHS, 1.0)
    prior = VoicePrior(new_adapter(model, "population", MLP, 1), 0.01, 2, (step,), record, {}, 12, 100.0)
    base = Base(str(MODEL), None, TRAINER, fingerprint(model), str(folder), 1)
    with workers_of(ClusterSettings(address, workers=2), base) as pool:
        yield Run(model, pool, manifest, prior, folder)


@pytest.fixture(scope="module")
def here(run: Run) -> list[SpeakerResult]:
    """What everybody gets without a cluster, in the store `here`."""
    return run.adapt_here("here", prior=run.prior)


def worker_processes() -> list[int]:
    """Ids of the processes of Ray that hold a base, below this one."""
    return titled("ray::Worker", below=os.getpid())


def same(one: dict[str, Adapter], other: dict[str, Adapter], tolerance: float = 0.0) -> bool:
    assert one.keys() == other.keys() and len(one) == USERS - 1
    for user, adapter in one.items():
        for point, state in adapter.weights.items():
            for key, value in state.items():
                wanted = other[user].weights[point][key]
                torch.testing.assert_close(value, wanted, rtol=tolerance, atol=tolerance)
    return True


def reached(results: list[SpeakerResult]) -> list[SpeakerResult]:
    return sorted((replace(one, status="") for one in results), key=lambda one: one.user)


def test_as_on_one_machine(run: Run, here: list[SpeakerResult]) -> None:
    by_workers = run.adapt("workers", prior=run.prior)
    assert reached(by_workers) == reached(here)
    assert {one.kind for one in here} == {"adapted", None}
    assert [one.user for one in by_workers if one.problem] == ["user 1"]
    assert same(run.adapters("workers"), run.adapters("here"))  # bit for bit
    again = run.adapt("workers", prior=run.prior)
    assert {one.status for one in again} == {"finished before", "skipped"}
    assert reached(again) == reached(by_workers) and run.adapters("workers")


def test_priors_made_of_the_speakers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 15 speakers two parts of 7 or 8 others are enough here; the parts are learnt by different workers."""
    monkeypatch.setattr("nemo_ds2_adapters.adaptation.voice_prior.fit_prior.LEAST_OTHERS", 7)
    monkeypatch.setattr("nemo_ds2_adapters.adaptation.plan.is_of_use", lambda prior: True)
    by_workers, here = run.adapt("by parts", own_prior=QUICK), run.adapt_here("by parts here", own_prior=QUICK)
    assert reached(by_workers) == reached(here)
    one, other = run.adapters("by parts"), run.adapters("by parts here")
    assert same(one, other, 1e-9)
    assert len({adapter.metadata["settings"] for adapter in (*one.values(), *other.values())}) == 1
    people, _ = read_speakers(str(run.manifest), "manifest", "speaker")
    start = new_adapter(run.model, "population", MLP, 0)
    parts = learn_by_parts(run.model, people[2:8], start, QUICK)
    others = learn_by_parts(run.model, people[2:8], start, QUICK, learn=learning(run.pool, start, QUICK))
    assert [prior.record for prior, _ in parts] == [prior.record for prior, _ in others]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("moment", [0, 1])
def test_killed_workers(run: Run, moment: int) -> None:
    """The other one does what it had; another one takes its place."""
    store = f"killed {moment}"
    killed: list[int] = []

    def kill() -> None:
        while len(list((run.folder / store / "users").glob("*/*/*.safetensors"))) <= 3 * moment:
            time.sleep(0.01)
        killed.append(worker_processes()[0])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    results = run.adapt(store, prior=run.prior)
    thread.join()
    assert killed and sum(one.problem is None for one in results) == USERS - 1
    assert same(run.adapters(store), run.adapters("here"), ROUNDING)


@pytest.mark.usefixtures("here")
def test_killed_driver(run: Run, address: str, tmp_path: Path) -> None:
    """Its workers end with it; what it had finished is not done again."""
    save_prior(run.prior, tmp_path / "prior.pt")
    overrides = [
        "cluster=ray",
        f"cluster.address={address}",
        "cluster.workers=1",
        f"model.nemo_model={MODEL}",
        f"model.train_ds.manifest_filepath={run.manifest}",
        f"model.adapter.prior={tmp_path / 'prior.pt'}",
        f"model.adapter.users_at_once={USERS_AT_ONCE}",
        "model.adapter.mlp.hidden_dims=[4]",
        "trainer.precision=64-true",
        f"adapter_store={run.folder / 'driver'}",
        f"output_dir={tmp_path / 'report'}",
    ]
    command = [sys.executable, "-m", "nemo_ds2_adapters.cli", "adapt-speakers", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=tmp_path)
    stored = run.folder / "driver" / "users"
    while not list(stored.glob("*/*/*.safetensors")) and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, (tmp_path / "log").read_text()
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = run.adapters("driver")
    assert 0 < len(finished) < USERS - 1
    assert not (tmp_path / "report" / "report.parquet").exists()
    for _ in range(600):
        if len(worker_processes()) == 2:  # this test's own
            break
        time.sleep(0.1)
    assert len(worker_processes()) == 2
    second = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, text=True, timeout=300)
    assert second.returncode == 0, second.stderr
    rows = {one.user: one for one in read_results(tmp_path / "report" / "report.parquet")}
    assert {user for user, one in rows.items() if one.status == "finished before"} >= finished.keys()
    assert len(rows) == USERS and (tmp_path / "report" / "report.csv").exists()
    assert "1 workers, 1 cores each" in second.stdout and "core-seconds each" in second.stdout
    assert same(run.adapters("driver"), run.adapters("here"), ROUNDING)
