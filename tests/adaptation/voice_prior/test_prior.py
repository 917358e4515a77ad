"""The voice prior: its file, what is learnt from whom, and what people are served by it."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from nemo_ds2_adapters.adaptation.adapt import adapt
from nemo_ds2_adapters.adaptation.group import adapt_group
from nemo_ds2_adapters.adaptation.many_speakers import adapt_speakers
from nemo_ds2_adapters.adaptation.report import by_seconds
from nemo_ds2_adapters.adaptation.settings import Settings
from nemo_ds2_adapters.adaptation.start import new_adapter
from nemo_ds2_adapters.adaptation.voice_prior.choice import MOST_HARM, choose, is_of_use, predict
from nemo_ds2_adapters.adaptation.voice_prior.fit_prior import PriorSettings, fit_prior, learn_by_parts, learn_prior
from nemo_ds2_adapters.adaptation.voice_prior.prior import (
    Experience,
    Step,
    VoicePrior,
    describe,
    read_prior,
    save_prior,
    weights_hash,
)
from nemo_ds2_adapters.adapters.adapter import with_metadata, zero
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.adapters.lifecycle import delete_adapter
from nemo_ds2_adapters.data.speakers import Speaker, read_speakers
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.evaluation.errors import Score
from nemo_ds2_adapters.formats.file import write_adapters
from nemo_ds2_adapters.store.store import AdapterStore

MLP = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [4], "layers": "all"}
SETTINGS = Settings({"name": "adamw", "lr": 0.01})
QUICK = PriorSettings(epochs=2, lr=0.01, batch_size=4, folds=2, person_epochs=(1, 2))


@pytest.fixture
def people(tmp_path: Path) -> list[Speaker]:
    """Six speakers of four recordings of noise each."""
    random = np.random.default_rng(0)
    lines = []
    for speaker in range(6):
        for i, text in enumerate(("ab", "yes", "no a", "one two")):
            seconds = 0.5 + 0.1 * i + 0.02 * speaker
            path = tmp_path / f"{speaker}_{i}.wav"
            soundfile.write(path, 0.1 * random.standard_normal(round(seconds * 16000)), 16000)
            lines.append({"audio_filepath": str(path), "duration": seconds, "text": text, "speaker": f"s{speaker}"})
    manifest = tmp_path / "people.json"
    manifest.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    return read_speakers(str(manifest), "manifest", "speaker")[0]


@pytest.fixture
def prior(make_model) -> VoicePrior:
    """With a record in which everybody gained much."""
    adapter = new_adapter(make_model().double(), "population", MLP, 0)
    weights = {point: {k: v + 0.01 for k, v in state.items()} for point, state in adapter.weights.items()}
    record = tuple(Experience(0, 3.0, 20, 10 + i % 3, 8, 40, 20 + i % 2, 15, 12) for i in range(12))
    return VoicePrior(replace(adapter, weights=weights), 0.01, 2, (Step(3.0, 2, 1.0),), record, {}, 12, 100.0)


def experiences(gain_by_prior: float, gain: float, spread: float = 0.02, count: int = 40) -> tuple[Experience, ...]:
    """Of people with 30 wrong words of a hundred, who gained so many words per word."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        prior, adapted = (round(30 - 100 * g - 100 * spread * random.standard_normal()) for g in (gain_by_prior, gain))
        found.append(Experience(0, 10.0, 40, 12, 12 - round(40 * gain_by_prior), 100, 30, prior, adapted))
    return tuple(found)


def test_file(prior: VoicePrior, tmp_path: Path, make_model) -> None:
    save_prior(prior, tmp_path / "prior.pt")
    found = read_prior(tmp_path / "prior.pt")
    assert found == replace(prior, adapter=found.adapter)
    assert found.adapter == prior.adapter
    model = make_model().double()
    model.load_adapters(str(tmp_path / "prior.pt"))  # NeMo's own
    assert list_adapters(model) == ["population"]


def test_other_files(prior: VoicePrior, tmp_path: Path) -> None:
    path = tmp_path / "adapter.pt"
    write_adapters([prior.adapter], path)
    with pytest.raises(AdapterFileError, match=r"adapter\.pt: holds an adapter, but no voice prior"):
        read_prior(path)
    values = prior.as_adapter().metadata["voice_prior"]
    for damage in (
        {"recipe": [{"seconds": 3.0}]},
        {"recipe": []},
        {"recipe": [{"seconds": -1.0, "epochs": 2, "share": 1.0}]},
        {"record": [[1, 2]]},
        {"record": [[0, 3.0, 20, float("nan"), 8, 40, 20, 15, 12]]},
        {"lr": "fast"},
    ):
        write_adapters([with_metadata(prior.adapter, {"voice_prior": {**values, **damage}})], path)
        with pytest.raises(AdapterFileError, match="damaged"):
            read_prior(path)


def test_harm_without_speech_is_said(prior: VoicePrior) -> None:
    assert prior.helps_unheard
    assert "no adapter_default" not in describe(prior)[-1]
    harmful = replace(prior, record=tuple(replace(one, prior_errors=one.base_errors + 1) for one in prior.record))
    assert not harmful.helps_unheard  # although their own adapters help
    assert "no adapter_default" in describe(harmful)[-1]


def test_learning(people: list[Speaker], make_model, snapshot) -> None:
    model = make_model()
    start = new_adapter(model, "population", MLP, 0)
    before = snapshot(model)
    prior = learn_prior(model, people, start, QUICK)
    assert snapshot(model) == before
    assert prior.adapter.architecture == start.architecture
    assert prior.adapter != start
    assert (prior.speakers, prior.seconds) == (6, pytest.approx(sum(person.seconds for person in people)))
    assert [round(step.seconds, 2) for step in prior.recipe] == [0.55, 2.05]  # one utterance, and three
    for step in prior.recipe:
        assert len(prior.experiences(step)) == 6  # everybody was left out once
        assert all(one.words == 2 for one in prior.experiences(step))  # of "no a", which nobody was adapted on
    assert set(prior.spread) == {f"{point}.{key}" for point, state in start.weights.items() for key in state}
    assert len(describe(prior)) == 1 + len(prior.recipe) + (not prior.helps_unheard)


def test_nobody_is_in_their_own_population(people: list[Speaker], make_model) -> None:
    """Other words of the first speaker change nothing for those who are left out together with them."""
    model = make_model().double()
    start = new_adapter(model, "population", MLP, 0)
    others = [replace(u, text="a a a a") if i == 0 else u for i, u in enumerate(people[0].utterances)]
    first, second = (
        learn_prior(model, [one, *people[1:]], start, QUICK) for one in (people[0], Speaker("s0", others))
    )
    for step in range(2):
        # A part's speakers stand together, in order: 0, 2 and 4, then the others.
        one, two = ([e for e in prior.record if e.step == step][1:3] for prior in (first, second))
        assert [(e.own_prior_errors, e.prior_errors) for e in one] == [
            (e.own_prior_errors, e.prior_errors) for e in two
        ]
    assert first.adapter != second.adapter  # everybody's


def test_from_a_manifest(people: list[Speaker], make_model, tmp_path: Path) -> None:
    model = make_model()
    found = fit_prior(model, tmp_path / "people.json", "speaker", MLP, QUICK)
    assert found.record == learn_prior(model, people, new_adapter(model, "population", MLP, 0), QUICK).record


def test_priors_made_in_passing(people: list[Speaker], make_model, tmp_path: Path, monkeypatch) -> None:
    """Nobody's knows them; finished people are skipped as long as the others are the same; too few are told."""
    model = make_model().double()
    start = new_adapter(model, "population", MLP, 0)
    others = [replace(u, text="a a a a") for u in people[0].utterances[:1]] + people[0].utterances[1:]
    changed = [Speaker("s0", others), *people[1:]]
    (first, part), (second, _) = learn_by_parts(model, people, start, QUICK)
    (same, _), (other, _) = learn_by_parts(model, changed, start, QUICK)
    assert [one.user_id for one in part] == ["s0", "s2", "s4"]
    assert (first.adapter, first.speakers, len(first.experiences(first.recipe[0]))) == (same.adapter, 3, 3)
    assert second.adapter != other.adapter

    said: list[str] = []
    store = AdapterStore(tmp_path / "store")
    run = partial(adapt_speakers, model, store=store, settings=SETTINGS, start=start, own_prior=QUICK, say=said.append)
    few = run(people)
    assert "6 speakers with 3 utterances or more, of whom each prior would know 3" in said[0]
    assert not any(one.is_expected for one in few)

    monkeypatch.setattr("nemo_ds2_adapters.adaptation.voice_prior.fit_prior.LEAST_OTHERS", 3)
    monkeypatch.setattr("nemo_ds2_adapters.adaptation.plan.is_of_use", lambda prior: True)
    made = run(people)
    assert all(("s of speech" if one.is_expected else "their own recordings") in one.reason for one in made)
    assert [store.get(f"s{i}").metadata["prior"] for i in range(2)] == [
        weights_hash(one.adapter) for one in (first, second)
    ]
    assert sum(row["users"] for row in by_seconds(made)) == 6
    assert sum(row[kind] for row in by_seconds(made) for kind in ("base", "prior", "adapted")) == 6
    assert {one.status for one in run(people)} == {"finished before"}
    assert [one.kind for one in run(people)] == [one.kind for one in made]
    assert "finished before" not in {one.status for one in run(changed)}

    monkeypatch.setattr("nemo_ds2_adapters.adaptation.plan.is_of_use", is_of_use)
    without = run(people, store=AdapterStore(tmp_path / "no"))
    assert said[-1] == "no prior is safely of use to those left out of it: each one's own recordings decide"
    assert not any(one.is_expected for one in without)


def test_too_few(people: list[Speaker], make_model) -> None:
    model = make_model()
    with pytest.raises(InputError, match="5 speakers with 3 utterances or more are too few"):
        learn_prior(model, people[:5], new_adapter(model, "population", MLP, 0), QUICK)
    with pytest.raises(InputError, match=r"prior\.folds=1"):
        PriorSettings(folds=1)


@pytest.mark.parametrize(
    ("by_prior", "by_own", "kind"),
    [(0.10, 0.15, "adapted"), (0.10, 0.05, "prior"), (-0.05, -0.02, "base"), (0.01, 0.02, "base")],
)
def test_choice(prior: VoicePrior, by_prior: float, by_own: float, kind: str) -> None:
    spread = 0.08 if by_own == 0.02 else 0.02  # the last ones gain a little on average, and some lose much
    prior = replace(prior, record=experiences(by_prior, by_own, spread))
    step = prior.recipe[0]
    base, own = Score(40, 12, 200, 30), Score(40, 12 - round(40 * by_prior), 200, 25)
    choice = choose(prior, step, 10.0, base, own)
    assert choice.kind == kind
    assert choice.harm <= MOST_HARM
    assert "10 s of speech" in choice.reason


@given(st.lists(st.tuples(*[st.integers(0, 30)] * 5), min_size=6, max_size=20), st.integers(0, 30), st.integers(0, 30))
def test_no_choice_is_riskier_than_allowed(rows: list, base: int, own: int) -> None:
    record = tuple(Experience(0, 5.0, 30, a, b, 30, c, d, e) for a, b, c, d, e in rows)
    prior = VoicePrior(None, 0.01, 2, (Step(5.0, 2, 1.0),), record, {}, len(rows), 50.0)  # type: ignore[arg-type]
    choice = choose(prior, prior.recipe[0], 5.0, Score(30, base, 1, 0), Score(30, own, 1, 0))
    assert 0 <= choice.harm <= MOST_HARM
    assert choice.gain >= 0
    if choice.kind != "base":
        assert predict(record, choice.kind, Score(30, base), Score(30, own)) == (choice.gain, choice.harm)


def test_of_use(prior: VoicePrior) -> None:
    assert is_of_use(replace(prior, record=experiences(0.10, 0.15)))
    assert not is_of_use(replace(prior, record=experiences(0.0, 0.0)))
    assert not is_of_use(replace(prior, record=experiences(0.10, 0.15, count=2)))


def test_certainty_grows_with_people(prior: VoicePrior) -> None:
    few, many = (
        predict(experiences(0.05, 0.05, 0.02, count), "adapted", Score(40, 12), Score(40, 10))[1] for count in (6, 200)
    )
    assert few > 5 * many


def test_hours_of_speech(prior: VoicePrior) -> None:
    prior = replace(prior, record=experiences(0.10, 0.15))
    choice = choose(prior, prior.recipe[0], 1e5, Score(10**6, 3 * 10**5), Score(10**6, 10**5))
    assert choice.kind == "adapted"
    assert 0 <= choice.harm <= MOST_HARM


def test_own_utterances_can_speak_against_the_population(prior: VoicePrior) -> None:
    """Everybody gained much: somebody who makes a few errors more has had bad luck, with many more is like nobody."""
    prior = replace(prior, record=experiences(0.10, 0.15))
    step = prior.recipe[0]
    assert choose(prior, step, 10.0, Score(40, 12), Score(40, 13)).kind == "adapted"
    assert choose(prior, step, 10.0, Score(40, 6), Score(40, 36)).kind == "base"


def test_somebody_may_be_like_nobody_in_a_small_population(prior: VoicePrior) -> None:
    record = experiences(0.10, 0.15, count=60)
    kinds = []
    for count in (6, 60):
        few = replace(prior, record=record[:count])
        kinds.append(choose(few, few.recipe[0], 1.0, Score(6, 1), Score(6, 1)).kind)
    assert kinds == ["base", "adapted"]


def test_unlike_everybody(prior: VoicePrior) -> None:
    """Of them, and with a record of nobody, the record says nothing."""
    step, like, far = prior.recipe[0], (Score(20, 12), Score(20, 8)), (Score(20, 18), Score(20, 17))
    nobody = replace(prior, record=())
    reason = "9 s of speech: nobody in the prior's record is like this"
    assert choose(prior, step, 9.0, *like).reason != reason
    assert [(one.kind, one.reason) for one in (choose(prior, step, 9.0, *far), choose(nobody, step, 9.0, *like))] == [
        ("base", reason)
    ] * 2


def test_whom_the_record_promises_nothing(people: list[Speaker], prior: VoicePrior, make_model) -> None:
    """Their own recordings decide, as without a prior; a single one cannot."""
    model = make_model().double()
    nobodys = replace(prior, record=())
    ((_, several),) = adapt_group(model, [people[0].utterances], SETTINGS, prior.adapter, prior=nobodys)
    assert not several.is_expected and several.problem is None and "their own recordings" in several.reason
    ((_, single),) = adapt_group(model, [people[0].utterances[:1]], SETTINGS, prior.adapter, prior=nobodys)
    assert (single.kind, single.problem) == ("base", None) and "nobody in the prior's record" in single.reason
    assert single.adapter == zero(single.adapter)


def test_everybody_gets_what_they_would_get_alone(people: list[Speaker], prior: VoicePrior, make_model) -> None:
    model = make_model().double()
    groups = [person.utterances[: 2 + i % 3] for i, person in enumerate(people)]
    together = dict(adapt_group(model, groups, SETTINGS, prior.adapter, prior=prior))
    assert sorted(together) == list(range(6))
    for number, group in enumerate(groups):
        ((_, alone),) = adapt_group(model, [group], SETTINGS, prior.adapter, prior=prior)
        assert (alone.kind, alone.epochs, alone.reason) == (
            together[number].kind,
            together[number].epochs,
            together[number].reason,
        )
        for point, state in alone.adapter.weights.items():
            for key, value in state.items():
                torch.testing.assert_close(together[number].adapter.weights[point][key], value, rtol=0, atol=1e-6)


def test_base_is_kept_as_an_adapter_that_changes_nothing(people: list[Speaker], prior: VoicePrior, make_model) -> None:
    prior = replace(prior, record=tuple(replace(one, adapted_errors=30, prior_errors=30) for one in prior.record))
    like = replace(prior, record=tuple(replace(one, own_base_errors=20, own_prior_errors=20) for one in prior.record))
    ((_, outcome),) = adapt_group(make_model().double(), [people[0].utterances], SETTINGS, prior.adapter, prior=like)
    assert (outcome.kind, outcome.epochs) == ("base", 0)
    assert outcome.adapter == replace(zero(prior.adapter), name=outcome.adapter.name)


def test_store_and_script(people: list[Speaker], make_model, tmp_path: Path) -> None:
    model = make_model()
    prior = learn_prior(model, people, new_adapter(model, "population", MLP, 0), QUICK)
    gained = {"own_base_errors": 99, "own_prior_errors": 99, "base_errors": 90, "prior_errors": 70}
    helped = [replace(one, **gained, adapted_errors=60) for one in prior.record]
    like = replace(prior, record=tuple(20 * helped))
    store = AdapterStore(tmp_path / "store")
    results = adapt_speakers(model, people[:2], store, SETTINGS, like.adapter, prior=like)
    assert {result.status for result in results} <= {"trained", "prior kept"}
    assert all("s of speech" in result.reason for result in results)
    again = adapt_speakers(model, people[:2], store, SETTINGS, like.adapter, prior=like)
    assert {result.status for result in again} == {"finished before"}

    manifest = tmp_path / "own.json"
    lines = [{"audio_filepath": str(u.audio), "duration": u.duration, "text": u.text} for u in people[0].utterances]
    manifest.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    save_prior(like, tmp_path / "prior.pt")
    for validation in (None, manifest):
        result = adapt(
            model, "ann", manifest, validation, tmp_path / "prior.pt",
            exp_dir=str(tmp_path / "x"), accelerator="cpu", enable_progress_bar=False,
        )  # fmt: skip
        assert result.reason
        assert result.reason in "\n".join(result.lines())
        delete_adapter(model, "ann")
    with pytest.raises(InputError, match="prior says what training starts from"):
        adapt(model, "bob", manifest, None, like, unfreeze_base=True, accelerator="cpu")
    with pytest.raises(InputError, match="made for another base"):
        adapt(make_model(encoder={"d_model": 9}), "bob", manifest, None, like, accelerator="cpu")


STEP, PERSON = {"seconds": 3.0, "epochs": 2, "share": 1.0}, [0, 3.0, 20, 10, 8, 40, 20, 15, 12]
DAMAGED = {
    "seconds": ["x", -1.0, 1e300, None],
    "speakers": [[1], -5, 1.5, True],
    "spread": ["x", [1.0], {"a": "b"}, {"a": 10**400}],
    "recipe": [
        None,
        [],
        "abc",
        7,
        *([{**STEP, "epochs": n}] for n in (1.5, 10**9, 10**400)),
        [{**STEP, "share": 2.0}],
    ],
    "lr": [10**400, 1e300, -0.1, True, "fast"],
    "batch_size": [1.5, 0, -4],
    "record": [
        None,
        [[1]],
        [[0.5, *PERSON[1:]]],
        [[7, *PERSON[1:]]],
        [[0, 0.0, *PERSON[2:]]],
        [["0", *PERSON[1:]]],
    ],
    "unknown": [1],
    "adapter": [1],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in DAMAGED.items() for value in values])
def test_damaged_files(prior: VoicePrior, tmp_path: Path, key: str, value: object) -> None:
    adapter = prior.as_adapter()
    values = {**adapter.metadata["voice_prior"], key: value}
    write_adapters([with_metadata(adapter, {"voice_prior": values})], tmp_path / "prior.pt")
    with pytest.raises(AdapterFileError, match=r"prior\.pt: its voice prior is damaged"):
        read_prior(tmp_path / "prior.pt")
