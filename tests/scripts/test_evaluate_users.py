"""eval_asr_adapter.py with adapter_key: everybody's adapter beside the base."""

import json
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from torch import nn

from nemo_ds2_adapters import AdapterStore, add_adapter, delete_adapter, transcribe
from nemo_ds2_adapters.formats.file import write_adapters

EVALUATE = "asr_adapters/eval_asr_adapter.py"


@pytest.fixture
def per_user(config: DictConfig, make_model, manifest: Path, tmp_path: Path) -> DictConfig:
    """A config that evaluates two people, whose adapters are in the model and, as ann and bob, in a store."""
    model = make_model()
    store = AdapterStore(tmp_path / "store")
    for user in ("ann", "bob"):
        add_adapter(model, user, {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [4]})
    for name, parameter in model.named_parameters():
        if "layers." in name or "adapter" in name or "output" in name:
            nn.init.normal_(parameter)
    for user in ("ann", "bob"):
        store.put(user, model, user)
    model.save_to(str(tmp_path / "everybody.nemo"))
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for line, user in zip(lines, ("ann", "bob", "ann", "ann")):
        line["speaker"] = user
    (tmp_path / "test.json").write_text("\n".join(map(json.dumps, lines)))
    expected = {
        "base_hypothesis": transcribe(model, manifest, [None] * 4, progress=False),
        "adapted_hypothesis": transcribe(model, manifest, ["ann", "bob", "ann", "ann"], progress=False),
    }
    (tmp_path / "expected.json").write_text(json.dumps(expected))
    for user in ("ann", "bob"):
        delete_adapter(model, user)
    model.save_to(str(tmp_path / "base_only.nemo"))
    config.model.adapter.adapter_name = "???"
    config.model.adapter.adapter_key = "speaker"
    config.model.nemo_model = str(tmp_path / "everybody.nemo")
    config.model.test_ds.manifest_filepath = str(tmp_path / "test.json")
    config.trainer.enable_progress_bar = False
    config.output_filename = str(tmp_path / "out" / "users.jsonl")
    return config


@pytest.mark.parametrize("with_store", [False, True])
def test_everybody(call_script, per_user: DictConfig, tmp_path: Path, capsys, with_store: bool) -> None:
    if with_store:
        per_user.model.nemo_model = str(tmp_path / "base_only.nemo")
        per_user.adapter_store = str(tmp_path / "store")
    call_script(EVALUATE, per_user)
    output = tmp_path / "out" / "users.jsonl"
    lines = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    for key, texts in json.loads((tmp_path / "expected.json").read_text()).items():
        assert [line[key] for line in lines] == texts
    assert [line["user"] for line in lines] == ["ann", "bob", "ann", "ann"]
    content = json.loads(output.with_suffix(".json").read_text("utf-8"))
    assert {user["user"]: user["utterances"] for user in content["users"]} == {"ann": 3, "bob": 1}
    errors = sum(line["adapted_word_errors"] for line in lines)
    assert content["adapted_wer"]["value"] == pytest.approx(errors / content["words"])
    assert output.with_suffix(".csv").is_file() and output.with_suffix(".png").is_file()
    shown = capsys.readouterr().out
    assert "2 users, 4 utterances, 6 words" in shown and "95 % intervals), p = " in shown


def test_people_without_an_adapter(call_script, per_user: DictConfig, tmp_path: Path, capsys) -> None:
    store = AdapterStore(tmp_path / "store")
    write_adapters([store.get("bob")], tmp_path / "default.pt")
    store.erase("bob")
    per_user.model.nemo_model = str(tmp_path / "base_only.nemo")
    per_user.adapter_store = str(tmp_path / "store")
    with pytest.raises(SystemExit, match="has no adapter of bob"):
        call_script(EVALUATE, per_user)
    per_user.adapter_default = str(tmp_path / "default.pt")
    call_script(EVALUATE, per_user)
    lines = [json.loads(line) for line in (tmp_path / "out" / "users.jsonl").read_text("utf-8").splitlines()]
    expected = json.loads((tmp_path / "expected.json").read_text())["adapted_hypothesis"]
    assert [line["adapted_hypothesis"] for line in lines] == expected
    assert "1 of 2 users have no adapter and get that of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.adapter.adapter_name": "ann"}, "adapter_key=speaker: leave model.adapter.adapter_name out"),
        ({"model.adapter.adapter_key": "person"}, "test.json, line 1: person=None, expected text"),
        ({"adapter_store": "nowhere"}, "there is no adapter store"),
        ({"model.nemo_model": "base_only"}, "the model has no adapter of ann, bob"),
        (
            {"model.adapter.adapter_key": None, "adapter_default": "x.pt"},
            "adapter_default=x.pt needs model.adapter.adapter_key",
        ),
        ({"model.adapter.adapter_key": None, "adapter_store": "x"}, "adapter_store=x needs model.adapter.adapter_key"),
    ],
)
def test_wrong_settings(call_script, per_user: DictConfig, tmp_path: Path, changes: dict, message: str) -> None:
    for key, value in changes.items():
        *sections, name = key.split(".")
        node = per_user
        for section in sections:
            node = node[section]
        node[name] = str(tmp_path / "base_only.nemo") if value == "base_only" else value
    with pytest.raises(SystemExit) as end:
        call_script(EVALUATE, per_user)
    assert str(end.value.code).startswith("error: ") and message in str(end.value.code)
    assert not (tmp_path / "out" / "users.jsonl").exists()


def test_personal_words(call_script, per_user: DictConfig, tmp_path: Path) -> None:
    """The store's words of a user change what their adapter makes of speech, not what the base or others' do."""
    per_user.model.nemo_model = str(tmp_path / "base_only.nemo")
    per_user.adapter_store = str(tmp_path / "store")
    OmegaConf.update(per_user, "decoding.phrase_bonus", 12.0, force_add=True)
    AdapterStore(tmp_path / "store").put_words("ann", ["qxq", "zyz"])
    call_script(EVALUATE, per_user)
    lines = [json.loads(line) for line in (tmp_path / "out" / "users.jsonl").read_text("utf-8").splitlines()]
    plain = json.loads((tmp_path / "expected.json").read_text())
    assert [line["base_hypothesis"] for line in lines] == plain["base_hypothesis"]
    adapted = [line["adapted_hypothesis"] for line in lines]
    assert adapted[1] == plain["adapted_hypothesis"][1]
    assert adapted[0] != plain["adapted_hypothesis"][0]
    with pytest.raises(SystemExit, match="word 'é': the model cannot write 'é'"):
        (tmp_path / "words.txt").write_text("ok\né\n")
        OmegaConf.update(per_user, "decoding.words", str(tmp_path / "words.txt"), force_add=True)
        call_script(EVALUATE, per_user)
