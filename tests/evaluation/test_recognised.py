"""What is recognised in utterances, and how many errors that makes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from nemo_ds2_adapters import AdapterBank, InputError, add_adapter, enabled_adapters, transcribe
from nemo_ds2_adapters.data.manifest import Utterance, read_manifest
from nemo_ds2_adapters.evaluation.errors import score
from nemo_ds2_adapters.evaluation.recognised import base_and_personal, recognise


@pytest.fixture
def utterances(manifest: Path) -> list[Utterance]:
    return read_manifest(manifest, "manifest")


def make_talkative(model) -> None:
    """Weights with which an untrained model says something, and not always the same."""
    for parameter in (*model.encoder.layers.parameters(), model.decoder.output.weight):
        torch.nn.init.normal_(parameter)


def count_calls(module: torch.nn.Module) -> list[int]:
    """One entry per call of the module from now on."""
    calls: list[int] = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize(("kind", "conv", "first", "last"), [("first", 1, 2, 2), ("last", 1, 1, 1), ("head", 1, 1, 1)])
def test_what_both_share_runs_once(model, attach, solo, batch, kind: str, conv: int, first: int, last: int) -> None:
    attach(model, kind, each=2)
    users = [f"{kind}_0", f"{kind}_1", None]
    alone = {user: solo(model, user, batch) for user in users}
    modules = (model.encoder.conv, *model.encoder.layers)
    calls = [count_calls(module) for module in modules]
    with torch.no_grad():
        base, personal, lengths = base_and_personal(model, AdapterBank(model), *batch.values(), users)
    assert [len(counted) for counted in calls] == [conv, first, last]
    for row, (user, length) in enumerate(zip(users, lengths)):
        torch.testing.assert_close(base[row, :length], alone[None][row, :length], atol=1e-5, rtol=0)
        torch.testing.assert_close(personal[row, :length], alone[user][row, :length], atol=1e-5, rtol=0)


def test_each_user_with_and_without_adapter(model, attach, manifest: Path, utterances: list[Utterance]) -> None:
    attach(model, "first", "own_head")
    make_talkative(model)
    model.train()
    users = ["first_0", "own_head_0", "first_0", "own_head_0"]
    utterances[3] = replace(utterances[3], text="")
    found = recognise(model, utterances, users, batch_size=3, progress=False)
    assert [one.base_hypothesis for one in found] == transcribe(model, manifest, [None] * 4, progress=False)
    assert [one.hypothesis for one in found] == transcribe(model, manifest, users, progress=False)
    assert [one.user for one in found] == users and [one.utterance for one in found] == utterances
    for one in found:
        assert one.score == score(one.hypothesis, one.utterance.text)
        assert one.base_score == score(one.base_hypothesis, one.utterance.text)
    assert found[3].line()["words"] == 0 and found[3].line()["base_word_errors"] > 0
    bank = AdapterBank(model)
    assert [one.line() for one in recognise(model, utterances, users, bank, progress=False)] == [
        one.line() for one in found
    ]
    assert model.training and model.encoder.training


def test_the_model_as_it_is(model, attach, manifest: Path, utterances: list[Utterance]) -> None:
    attach(model, "first")
    make_talkative(model)
    every = set()
    for name in (None, "first_0"):
        with enabled_adapters(model, name):
            found = recognise(model, utterances, batch_size=3, progress=False)
            paths = [str(utterance.audio) for utterance in utterances]
            alone = model.transcribe(paths, batch_size=1, verbose=False)
            model.eval()
        assert [one.hypothesis for one in found] == [hypothesis.text for hypothesis in alone]
        every |= {one.hypothesis for one in found}
        line = found[1].line()
        assert (line["reference"], line["wer"]) == ("yes", score(found[1].hypothesis, "yes").wer)
        assert line["audio_filepath"] == paths[1] and "user" not in line
    assert len(every) > 2


def test_any_ctc_model(make_base, linear, utterances: list[Utterance]) -> None:
    """A Conformer takes one adapter for all of a batch."""
    model = make_base("conformer")
    add_adapter(model, "ann", {**linear, "enabled": False})
    for name, parameter in model.named_parameters():
        if "adapter_layer" in name or name.startswith("decoder"):
            torch.nn.init.normal_(parameter)
    found = {}
    for name in (None, "ann"):
        with enabled_adapters(model, name):
            found[name] = [one.hypothesis for one in recognise(model, utterances, batch_size=3, progress=False)]
            alone = [recognise(model, [utterance], progress=False)[0].hypothesis for utterance in utterances]
        assert found[name] == alone
    assert found[None] != found["ann"]
    with pytest.raises(InputError):
        recognise(model, utterances, ["ann"] * 4, progress=False)


@pytest.mark.parametrize("users", [None, ["first_0"] * 4])
def test_arithmetic(model, attach, utterances: list[Utterance], users) -> None:
    """Mixed precision is used where it is asked for."""
    attach(model, "first")
    seen = []
    model.encoder.layers[-1].register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    for precision in (None, torch.bfloat16):
        recognise(model, utterances, users, progress=False, precision=precision)
    assert set(seen[: len(seen) // 2]) == {False} and set(seen[len(seen) // 2 :]) == {True}
    with enabled_adapters(model, None):
        assert len(recognise(model.double(), utterances, users, progress=False)) == 4


def test_channels_are_averaged(model, utterances: list[Utterance], tmp_path: Path) -> None:
    """NeMo's loader pads several channels to a square."""
    make_talkative(model)
    stereo = []
    for i, utterance in enumerate(utterances):
        samples, rate = soundfile.read(utterance.audio)
        soundfile.write(tmp_path / f"{i}.wav", np.stack([0.5 * samples, 1.5 * samples], axis=1), rate, "FLOAT")
        stereo.append(replace(utterance, audio=tmp_path / f"{i}.wav"))
    one, other = ([r.hypothesis for r in recognise(model, which, progress=False)] for which in (utterances, stereo))
    assert one == other


def test_wrong_input(model, utterances: list[Utterance], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    broken = Utterance(tmp_path / "text.wav", "yes", 1.0, place="test.json, line 7")
    with pytest.raises(InputError, match=r"test.json, line 7: text.wav cannot be read as audio"):
        recognise(model, [*utterances, broken], progress=False)
    with pytest.raises(InputError, match="batch_size=0: expected a whole number"):
        recognise(model, utterances, batch_size=0, progress=False)
    with pytest.raises(InputError, match="nobody"):
        recognise(model, utterances, ["nobody"] * 4, progress=False)
