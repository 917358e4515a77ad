"""Many speakers in one run: each gets what it would get alone, and nobody is harmed by the others."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from nemo_ds2_adapters.adaptation.adapt import adapt, config_with
from nemo_ds2_adapters.adaptation.fit_settings import StartSettings
from nemo_ds2_adapters.adaptation.group import adapt_group
from nemo_ds2_adapters.adaptation.lightning_fit import one_device_trainer, place
from nemo_ds2_adapters.adaptation.many_speakers import adapt_speakers, within_limits
from nemo_ds2_adapters.adaptation.report import SpeakerResult, table, write_reports
from nemo_ds2_adapters.adaptation.settings import Settings
from nemo_ds2_adapters.adaptation.start import starting_adapter
from nemo_ds2_adapters.adapters.adapter import Adapter, zero
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.data import audio
from nemo_ds2_adapters.data.manifest import read_manifest
from nemo_ds2_adapters.data.speakers import read_speakers
from nemo_ds2_adapters.errors import AdapterFileError, InputError, StoreBusyError
from nemo_ds2_adapters.store.store import AdapterStore

MLP = "nemo_ds2_adapters.modules.MLPAdapter"
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
    monkeypatch.setattr("nemo_ds2_adapters.adaptation.decision.LEAST_WORDS", -1000)
    monkeypatch.setattr("nemo_ds2_adapters.adaptation.decision._is_beyond_chance", lambda differences: True)


@pytest.fixture
def run(make_model, tmp_path: Path) -> Callable[..., list[SpeakerResult]]:
    def adapt_all(manifest: Path, store: AdapterStore, **settings: object) -> list[SpeakerResult]:
        own = {key: settings.pop(key) for key in ("users_at_once", "keep_activations") if key in settings}
        limits = {key: settings.pop(key) for key in ("max_duration",) if key in settings}
        values = config_with({**SETTINGS, **settings})
        plain = Settings.of(values)
        speakers, _ = read_speakers(str(manifest), "manifest", "speaker")
        model = make_model()
        place(model, one_device_trainer(values["trainer"]))
        start = starting_adapter(model, "speaker", StartSettings.of(values["model"]["adapter"]), plain.seed)
        before = fingerprint(model), [p.requires_grad for p in model.parameters()], set(vars(model))
        results = adapt_speakers(model, within_limits(speakers, limits), store, plain, start, key="manifest", **own)
        assert list_adapters(model) == []
        assert (fingerprint(model), [p.requires_grad for p in model.parameters()], set(vars(model))) == before
        return results

    return adapt_all


def flat(adapter: Adapter) -> torch.Tensor:
    return torch.cat([value.flatten() for state in adapter.weights.values() for value in state.values()])


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
        found = store.get(result.user)
        torch.testing.assert_close(flat(found), flat(attached_adapter(alone, "alone")), rtol=1e-4, atol=1e-8)
        about = found.metadata
        assert about["wer_after"] == result.wer_after and about["seconds_of_speech"] == pytest.approx(result.seconds)
        assert about["training"]["batch_size"] == 2


def test_finished_users_are_not_repeated(
    run, accept, lines: list[dict], tmp_path: Path, make_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AdapterStore(tmp_path / "store")
    some = [line for line in lines if line["speaker"] != SPEAKERS[2]]
    first = run(write_manifest(tmp_path / "some.json", some), store)
    decoded = []
    read = audio._from_file
    monkeypatch.setattr(
        audio, "_from_file", lambda utterance, *more: decoded.append(utterance) or read(utterance, *more)
    )
    second = run(write_manifest(tmp_path / "all.json", lines), store)
    assert [r.status for r in second] == ["finished before", "finished before", "trained"]
    assert {u.fields["speaker"] for u in decoded} == {SPEAKERS[2]}
    assert [(r.wer_before, r.wer_after, r.epochs) for r in second[:2]] == [
        (r.wer_before, r.wer_after, r.epochs) for r in first
    ]
    assert len(store.versions(SPEAKERS[0])) == 1


@pytest.mark.parametrize("what", ["settings", "data"])
def test_other_settings_or_data_start_anew(run, accept, lines: list[dict], tmp_path: Path, what: str) -> None:
    """A version that was trained on what is now held out would be scored on what it knows."""
    manifest = write_manifest(tmp_path / "all.json", lines)
    changed, settings = manifest, {"lr": 0.02}
    if what == "data":
        grown = [line for line in lines if line is not lines[0]]  # other data of the first speaker
        changed, settings = write_manifest(tmp_path / "grown.json", grown), {}
    store, other = AdapterStore(tmp_path / "store"), AdapterStore(tmp_path / "other")
    run(manifest, store)
    again = run(changed, store, **settings)
    others = "updated" if what == "settings" else "finished before"
    assert {r.user: r.status for r in again} == dict.fromkeys(SPEAKERS, others) | {SPEAKERS[0]: "updated"}
    alone = run(changed, other, **settings)
    assert [(r.wer_before, r.wer_after, r.epochs) for r in again] == [
        (r.wer_before, r.wer_after, r.epochs) for r in alone
    ]
    for user in SPEAKERS:
        torch.testing.assert_close(flat(store.get(user)), flat(other.get(user)), rtol=1e-6, atol=1e-10)
    assert len(store.versions(SPEAKERS[0])) == 2


def test_bad_data_of_one_speaker_is_nobody_elses_problem(run, lines: list[dict], tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    own = []
    for i in range(6):
        own.append({**lines[i], "audio_filepath": str(tmp_path / f"own{i}.wav")})
        noise = 0.1 * np.random.default_rng(i).standard_normal(8000)
        soundfile.write(own[i]["audio_filepath"], noise, 16000)
    broken = [
        {**own[0], "speaker": "missing file", "audio_filepath": "nowhere.wav"},
        {**own[0], "speaker": "no audio", "audio_filepath": str(tmp_path / "broken.wav")},
        {**own[1], "speaker": "no audio"},
        {**own[2], "speaker": "letters", "text": "Ärger"},
        {**own[3], "speaker": "letters"},
        {**own[4], "speaker": "once"},
        {**own[5], "speaker": "twice"},
        {**own[5], "speaker": "twice"},
        {**own[0], "speaker": "number", "offset": "abc"},
    ]
    results = run(write_manifest(tmp_path / "all.json", [*broken, *lines]), store)
    problems = {r.user: r.problem for r in results if r.problem}
    assert set(problems) == {"missing file", "no audio", "letters", "once", "twice", "number"}
    assert "nowhere.wav does not exist" in problems["missing file"] and "line 1" in problems["missing file"]
    assert "cannot be read as audio" in problems["no audio"] and "'Ä'" in problems["letters"]
    assert "at least 2" in problems["once"] and "twice" in problems["twice"]
    assert sorted(store.list()) == sorted(SPEAKERS)
    assert {r.status for r in results if not r.problem} == {"base kept"}  # noise teaches nothing

    write_reports(results, tmp_path / "report")
    assert len(json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))["users"]) == 9
    assert len((tmp_path / "report" / "report.csv").read_text("utf-8").splitlines()) == 10
    assert (tmp_path / "report" / "report.png").stat().st_size > 10_000
    assert table(results).row_count == 9


def test_too_little_is_left_by_max_duration(run, lines: list[dict], tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    results = run(write_manifest(tmp_path / "all.json", lines), store, max_duration=0.62)
    problems = {r.user: r.problem for r in results}
    assert problems[SPEAKERS[2]] == "1 of 5 utterances left by min_ and max_duration"
    assert list(store.list()) == [user for user, problem in problems.items() if problem is None] == [SPEAKERS[0]]


def test_kept_activations_go_with_the_user(run, lines: list[dict], tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    manifest = write_manifest(tmp_path / "all.json", lines)
    run(manifest, store, keep_activations=True)
    files = [list(store.cache_folder(user).iterdir()) for user in SPEAKERS]
    assert [len(found) for found in files] == [5, 5, 5]
    store.erase(SPEAKERS[0])
    assert not any(path.exists() for path in files[0]) and all(path.exists() for path in files[1])


def test_a_recording_of_two_speakers_is_a_problem_of_both(run, lines: list[dict], tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    stolen = {**lines[0], "speaker": SPEAKERS[1], "text": "yes"}
    results = run(write_manifest(tmp_path / "all.json", [*lines, stolen]), store, keep_activations=True)
    problems = {result.user: result.problem for result in results}
    assert "0_0.wav" in problems[SPEAKERS[0]] and SPEAKERS[1] in problems[SPEAKERS[0]]
    assert "0_0.wav" in problems[SPEAKERS[1]] and SPEAKERS[0] in problems[SPEAKERS[1]]
    assert list(store.list()) == [SPEAKERS[2]] and problems[SPEAKERS[2]] is None


def test_what_replaces_the_base_is_not_stored_where_the_base_is_better(
    run, lines: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AdapterStore(tmp_path / "store")
    monkeypatch.delitem(SETTINGS, "layers")  # which heads do not have
    head = {"adapter_type": "mlp_head", "adapter_module_name": "decoder", "mode": "replace"}
    results = run(write_manifest(tmp_path / "all.json", lines), store, lr=1e-9, sched=None, **head)
    assert {r.status for r in results} == {"base kept: no adapter"} and list(store.list()) == []
    assert all((r.epochs, r.wer_after) == (0, r.wer_before) for r in results)


def test_a_base_that_is_kept_is_stored_as_an_adapter(run, lines: list[dict], tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    results = run(write_manifest(tmp_path / "all.json", lines), store)
    assert {r.status for r in results} == {"base kept"}  # noise teaches nothing
    kept = store.get(SPEAKERS[0])
    assert kept == zero(kept)


def test_one_locked_speaker_is_reported_and_the_others_go_on(
    run, accept, lines: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AdapterStore(tmp_path / "store")
    put = AdapterStore.put

    def busy(self: AdapterStore, user_id: str, *more: object) -> object:
        if user_id == SPEAKERS[1]:
            raise StoreBusyError(f"user {user_id!r}: another process writes")
        return put(self, user_id, *more)

    monkeypatch.setattr(AdapterStore, "put", busy)
    results = run(write_manifest(tmp_path / "all.json", lines), store)
    assert [result.status for result in results] == ["trained", "skipped", "trained"]
    assert "another process writes" in results[1].problem
    assert sorted(store.list()) == sorted({SPEAKERS[0], SPEAKERS[2]})


def test_a_store_that_cannot_be_written_is_told_before_anything_is_trained(
    run, lines: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AdapterStore(tmp_path / "store")

    def refuse(self: AdapterStore) -> None:
        raise AdapterFileError(f"{tmp_path}: cannot be written (Permission denied)")

    monkeypatch.setattr(AdapterStore, "check_writable", refuse)
    monkeypatch.setattr("nemo_ds2_adapters.adaptation.many_speakers.adapt_group", lambda *_: pytest.fail("trained"))
    with pytest.raises(AdapterFileError, match="Permission denied"):
        run(write_manifest(tmp_path / "all.json", lines), store)


def test_findings_are_told(run, lines: list[dict], tmp_path: Path) -> None:
    samples, rate = soundfile.read(lines[0]["audio_filepath"])
    soundfile.write(lines[0]["audio_filepath"], np.zeros_like(samples), rate)
    results = run(write_manifest(tmp_path / "all.json", lines), AdapterStore(tmp_path / "store"))
    assert results[0].findings == ["silent: 1 of 5, for example 0_0.wav"] and results[1].findings == []


def test_a_group_is_a_function_of_its_arguments(
    make_model, accept, lines: list[dict], tmp_path: Path, snapshot
) -> None:
    """No store, no files: utterances and an adapter in, adapters out; one recording tells nothing."""
    model = make_model().double()
    own = [
        read_manifest(write_manifest(tmp_path / "own.json", [x for x in lines if x["speaker"] == user]), "manifest")
        for user in SPEAKERS
    ]
    settings = Settings({"name": "adamw", "lr": 0.01}, batch_size=2, max_epochs=2)
    start = starting_adapter(model, "anybody", StartSettings({"_target_": MLP, "hidden_dims": [4]}), seed=0)
    before, copy = snapshot(model), flat(start).clone()
    outcomes = dict(adapt_group(model, [*own, own[0][:1] * 3], settings, start))
    assert snapshot(model) == before and torch.equal(flat(start), copy)
    assert outcomes[3].problem == "1 recording, at least 2 are needed" and outcomes[3].adapter is None
    (alone,) = (outcome for _, outcome in adapt_group(model, own[1:2], settings, start))
    torch.testing.assert_close(flat(outcomes[1].adapter), flat(alone.adapter), rtol=1e-6, atol=1e-10)
    assert outcomes[0].adapter != outcomes[1].adapter != start


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, "model.adapter.folds=1: at least 2"),
        ({"users_at_once": 0}, "model.adapter.users_at_once=0: expected a whole number of at least 1"),
        ({"max_steps": 5}, "trainer.max_steps=5 does not go with cross-validation"),
        ({"precision": "bf16-mixed"}, "trainer.precision=bf16-mixed: expected 32-true or 64-true"),
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
