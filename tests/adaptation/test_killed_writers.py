"""Whatever writes a file and is killed at any call leaves the old file or the new one, and no temporary file for long.

Stores are tests/store/test_crash.py's.
"""

import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.adaptation.one_speaker import Reached, save
from nemo_ds2_adapters.adaptation.report import REPORTS, SpeakerResult, write_reports
from nemo_ds2_adapters.adaptation.voice_prior.prior import Experience, Step, VoicePrior, read_prior, save_prior
from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.chosen import ChosenAdapter
from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.cli import main
from nemo_ds2_adapters.formats.file import save_adapter
from nemo_ds2_adapters.formats.nemo_archive import save_nemo
from nemo_ds2_adapters.formats.reading import read_adapters
from nemo_ds2_adapters.formats.scratch import own_temporary_folder, sweep_scratch
from nemo_ds2_adapters.store.store import AdapterStore
from tests.killing import kills, kills_while_writing

KEY = {"audio": "a.wav"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


@pytest.fixture
def model(make_base, mlp: dict[str, Any]) -> EncDecCTCModel:
    model = make_base(n_layers=1)
    add_adapter(model, "old", mlp)
    return model


@pytest.fixture
def prior(model: EncDecCTCModel) -> VoicePrior:
    record = (Experience(0, 3.0, 20, 10, 8, 40, 20, 15, 12),)
    return VoicePrior(attached_adapter(model, "old"), 0.01, 2, (Step(3.0, 2, 1.0),), record, {}, 12, 100.0)


def visible(folder: Path) -> set[str]:
    """What a person, or a pattern such as `*.pt`, finds."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def age(folder: Path) -> None:
    """Let a day go by for what is being written."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            os.utime(path, (0, 0))


def killed(task: Callable[[], object], sizes: list[int]) -> Iterator[object]:
    yield from kills(task)
    yield from kills_while_writing(task, sizes)


def adapters_in(path: Path) -> set[str]:
    """Of a `.nemo` that is whole: its names of adapters."""
    with tarfile.open(path) as archive:
        weights = torch.load(archive.extractfile("./model_weights.ckpt"), weights_only=True)
    return {key.split(".adapter_layer.")[1].split(".")[0] for key in weights if ".adapter_layer." in key}


def test_adapter_file(model: EncDecCTCModel, out: Path) -> None:
    path = out / "adapters.pt"
    save_adapter(model, "old", path, {"count": 0})
    size = path.stat().st_size
    for call in killed(partial(save_adapter, model, "old", path, {"count": 1}), [0, 100, size // 2]):
        assert read_adapters(path)["old"].metadata["count"] in (0, 1) and visible(out) == {"adapters.pt"}, call
        age(out)
        save_adapter(model, "old", path, {"count": 0})
        assert [*out.iterdir()] == [path], call


def test_prior(prior: VoicePrior, out: Path) -> None:
    path = out / "prior.pt"
    for call in killed(partial(save_prior, prior, path), [0, 100, 1000]):
        assert visible(out) <= {"prior.pt"} and (not path.exists() or read_prior(path).speakers == 12), call
        path.unlink(missing_ok=True)
    age(out)
    save_prior(prior, path)
    assert [*out.iterdir()] == [path]


def test_model(model: EncDecCTCModel, mlp: dict[str, Any], out: Path, temporary: Path) -> None:
    path = out / "base.nemo"
    save_nemo(model, path)
    before, size = path.read_bytes(), path.stat().st_size
    add_adapter(model, "new", mlp)

    def command() -> None:
        with own_temporary_folder():
            save_nemo(model, path)

    found = []
    for call in killed(command, [0, 100, size // 2, size - 1]):
        assert visible(out) == {"base.nemo"}, call
        found.append(adapters_in(path))
        if found[-1] == {"old"}:
            assert path.read_bytes() == before
        sweep_scratch()  # as the next command does
        assert not any(temporary.iterdir()), call
    age(out)
    save_nemo(model, path)
    assert [*out.iterdir()] == [path]
    assert {frozenset(names) for names in found} == {frozenset({"old"}), frozenset({"old", "new"})}


def test_a_command_that_changes_a_model(model: EncDecCTCModel, out: Path, temporary: Path) -> None:
    path = out / "base.nemo"
    save_nemo(model, path)
    before = path.read_bytes()
    for call in kills(partial(quietly, "rename", str(path), "old", "new")):
        assert visible(out) == {"base.nemo"} and adapters_in(path) in ({"old"}, {"new"}), call
        assert len([*temporary.iterdir()]) <= 1
        if path.read_bytes() != before:
            path.write_bytes(before)
    with pytest.raises(SystemExit):
        main(["list", str(path)])
    assert not any(temporary.iterdir())
    assert adapters_in(path) == {"new"}


def quietly(*arguments: str) -> None:
    try:
        main([*arguments])
    except SystemExit as end:
        assert not end.code


def test_what_training_ends_with(model: EncDecCTCModel, out: Path) -> None:
    """Model and adapter: never an adapter's file of a training whose model is not there."""
    final, file = out / "run" / "final.nemo", out / "run" / "adapters.pt"
    task = partial(save, model, ChosenAdapter("old"), Reached(epochs=1), None, final, file)
    for call in killed(task, [0, 100, 10_000]):
        names = visible(out / "run") if (out / "run").exists() else set()
        assert names in (set(), {"final.nemo"}, {"final.nemo", "adapters.pt"}), call
        if names:
            assert adapters_in(final) == {"old"}
        if len(names) == 2:
            assert set(read_adapters(file)) == {"old"}
        for name in names:
            (out / "run" / name).unlink()
    age(out / "run")
    task()
    assert {path.name for path in (out / "run").iterdir()} == {"final.nemo", "adapters.pt"}


def test_reports(out: Path) -> None:
    def results(count: int) -> list[SpeakerResult]:
        rates = {"wer_before": 0.5, "wer_after": 0.4, "epochs": 2}
        return [SpeakerResult(f"user {i}", "trained", 3, 9.0, **rates) for i in range(count)]

    write_reports(results(2), out)
    for call in killed(partial(write_reports, results(3), out), [0, 100, 500]):
        assert visible(out) == {*REPORTS}, call
        assert len(json.loads((out / "report.json").read_text())["users"]) in (2, 3), call
        assert len((out / "report.csv").read_text().splitlines()) in (3, 4), call
        assert (out / "report.png").read_bytes().endswith(b"IEND\xaeB`\x82"), call
    age(out)
    write_reports(results(2), out)
    assert {path.name for path in out.iterdir()} == {*REPORTS}


def test_cache(out: Path) -> None:
    tensor = torch.arange(3000.0)
    task = partial(PrefixCache(out, 0.0).put, KEY, tensor)
    for call in killed(task, [0, 100, 12_000]):
        got = PrefixCache(out, 0.0).get(KEY)
        assert got is None or torch.equal(got, tensor), call
        for path in out.glob("*.safetensors"):
            path.unlink()
    age(out)
    PrefixCache(out)
    assert not any(out.iterdir())


def test_activations_of_a_killed_run_go_with_the_next_erasure(out: Path, temporary: Path) -> None:
    store = AdapterStore(out / "store")

    def train() -> None:
        cache = PrefixCache(memory=0.0)
        cache.put(KEY, torch.ones(1000))

    for call in killed(train, [0, 1000]):
        assert store.erase("ann") is False
        assert not any(temporary.iterdir()), call
    for call in kills(train):
        was_left = [f"{path}: removed, left by a run that was killed" for path in temporary.iterdir()]
        assert store.verify().repaired == was_left and not any(temporary.iterdir()), call
    assert not any(user_hash("ann") in str(path) for path in out.rglob("*"))
