"""transcribe_speech.py: NeMo's keys, and an adapter for each line."""

import json
from pathlib import Path

import pytest
from omegaconf import DictConfig
from torch import nn

from nemo_ds2_adapters import AdapterStore, add_adapter, enabled_adapters, save_adapter
from nemo_ds2_adapters.configs import shipped_config
from nemo_ds2_adapters.decoding.kneser_ney import write_language_model
from nemo_ds2_adapters.decoding.search import SearchSettings
from nemo_ds2_adapters.recognition.transcribe import transcribe

SCRIPT = "asr_adapters/transcribe_speech.py"
MLP = "nemo_ds2_adapters.modules.MLPAdapter"


@pytest.fixture
def model(make_model):
    """A model that writes something else with the adapter `personal`."""
    model = make_model()
    add_adapter(model, "personal", {"_target_": MLP, "hidden_dims": [4]})
    for name, parameter in model.named_parameters():
        if "layers." in name or "adapter" in name or "output" in name:
            nn.init.normal_(parameter)
    return model


@pytest.fixture
def texts(model, manifest: Path) -> dict[str | None, list[str]]:
    """What the base and `personal` make of the manifest."""
    return {name: transcribe(model, str(manifest), [name] * 4, progress=False) for name in (None, "personal")}


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_with_a_store(run_script, model, texts, manifest: Path, tmp_path: Path) -> None:
    AdapterStore(tmp_path / "store").put("ann@example.com", model, "personal")
    with enabled_adapters(model, None):
        model.save_to(str(tmp_path / "ds2.nemo"))
    entries = read_lines(manifest)
    entries[1]["speaker"], entries[2]["speaker"] = "ann@example.com", "nobody"
    entries.append({"audio_filepath": "nowhere.wav"})
    given = tmp_path / "calls.json"
    given.write_text("\n".join(map(json.dumps, entries)))
    finished = run_script(
        SCRIPT,
        f"model_path={tmp_path / 'ds2.nemo'}",
        f"dataset_manifest={given}",
        f"adapter_store={tmp_path / 'store'}",
        "adapter_key=speaker",
        "timestamps=true",
        "confidence=true",
        "progress=false",
    )
    assert finished.returncode == 1, finished.stderr
    reports = [line for line in finished.stderr.splitlines() if line.startswith("not transcribed: ")]
    assert len(reports) == 2 and "user 'nobody'" in reports[0] and "line 5: audio file nowhere.wav" in reports[1]
    output = tmp_path / "calls_ds2.json"
    assert finished.stdout.splitlines()[-1] == f"3 of 5 utterances transcribed: {output}"
    written = read_lines(output)
    assert [line["pred_text"] for line in written] == [texts[None][0], texts["personal"][1], texts[None][3]]
    for line, entry in zip(written, [entries[0], entries[1], entries[3]]):
        assert line.items() >= entry.items()
        assert [word["word"] for word in line["timestamp_word"]] == line["pred_text"].split()
        assert len(line["word_confidence"]) == len(line["timestamp_word"])


def test_people_who_have_not_spoken_yet(call_script, config, model, texts, tmp_path: Path) -> None:
    """A line whose speaker the store does not know gets the default, one without a speaker the base; as if alone."""
    AdapterStore(tmp_path / "store").put("ann", model, "personal")
    add_adapter(model, "population", {"_target_": MLP, "hidden_dims": [3]})
    for name, parameter in model.named_parameters():
        if ".population." in name:
            nn.init.normal_(parameter)
    save_adapter(model, "population", tmp_path / "prior.pt")
    entries = read_lines(Path(config.dataset_manifest))
    for entry, speaker in zip(entries[:3], ("ann", "newcomer", "another")):
        entry["speaker"] = speaker
    given = tmp_path / "calls.json"
    given.write_text("\n".join(map(json.dumps, entries)))
    alone = [
        transcribe(model, [entry["audio_filepath"]], [name], progress=False)[0]
        for entry, name in zip(entries, ("personal", "population", "population", None))
    ]
    assert alone[1] not in (texts["personal"][1], texts[None][1])
    config.merge_with({"dataset_manifest": str(given), "adapter_store": str(tmp_path / "store")})
    config.merge_with({"adapter_default": str(tmp_path / "prior.pt"), "adapter_key": "speaker"})
    with enabled_adapters(model, None):
        model.save_to(config.model_path)
    call_script(SCRIPT, config)
    assert [line["pred_text"] for line in read_lines(tmp_path / "out.json")] == alone
    config.merge_with({"adapter_store": None})  # then nobody has an adapter
    call_script(SCRIPT, config)
    (first,) = transcribe(model, [entries[0]["audio_filepath"]], ["population"], progress=False)
    assert [line["pred_text"] for line in read_lines(tmp_path / "out.json")] == [first, *alone[1:]]
    for entry in entries:
        entry.pop("speaker", None)
    given.write_text("\n".join(map(json.dumps, entries)))
    config.merge_with({"adapter_key": None})
    with pytest.raises(SystemExit, match="no line of the manifest has a field adapter or speaker"):
        call_script(SCRIPT, config)


@pytest.fixture
def config(model, manifest: Path, tmp_path: Path) -> DictConfig:
    model.save_to(str(tmp_path / "ds2.nemo"))
    cfg = shipped_config("asr_adapters/transcribe_speech")
    cfg.model_path = str(tmp_path / "ds2.nemo")
    cfg.dataset_manifest = str(manifest)
    cfg.output_filename = str(tmp_path / "out.json")
    cfg.progress = False
    return cfg


def test_the_model_as_it_is(call_script, config, texts, manifest: Path, tmp_path: Path, capsys) -> None:
    call_script(SCRIPT, config)
    assert [line["pred_text"] for line in read_lines(tmp_path / "out.json")] == texts["personal"]
    config.overwrite_transcripts = False
    call_script(SCRIPT, config)
    assert "nothing was done" in capsys.readouterr().out
    config.merge_with({"dataset_manifest": None, "audio_dir": str(manifest.parent), "overwrite_transcripts": True})
    config.audio_type = "flac"
    call_script(SCRIPT, config)
    assert [line["pred_text"] for line in read_lines(tmp_path / "out.json")] == texts["personal"][1::2]


@pytest.mark.parametrize("key", ["dataset_manifest", "model_path", "a recording", "the store", "a link"])
def test_output_over_an_input(call_script, config, manifest: Path, tmp_path: Path, key: str) -> None:
    recording = json.loads(manifest.read_text().splitlines()[0])["audio_filepath"]
    outputs = {"a recording": recording, "the store": "store/new.json", "a link": tmp_path / "link"}
    (tmp_path / "link").symlink_to(config.model_path)
    output = Path(config[key]) if key in config else tmp_path / outputs[key]
    (tmp_path / "store").mkdir(exist_ok=True)
    config.adapter_store = str(tmp_path / "store")
    config.output_filename = str(output)
    before = output.read_bytes() if output.exists() else None
    with pytest.raises(SystemExit, match="which is read: write to another path"):
        call_script(SCRIPT, config)
    assert before == (output.read_bytes() if output.exists() else None)


def test_text_from_data_does_not_reach_the_terminal_raw(call_script, config, tmp_path: Path, capsys) -> None:
    lines = [{**line, "note": "\x9b\u2028"} for line in read_lines(Path(config.dataset_manifest))]
    lines.append({"audio_filepath": "\x1b[31mnowhere\u202e.wav"})
    config.dataset_manifest = str(tmp_path / "m.json")
    (tmp_path / "m.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    config.adapter_store = config.adapter_key = None
    with pytest.raises(SystemExit):
        call_script(SCRIPT, config)
    shown = capsys.readouterr()
    assert "not transcribed" in shown.err and "\\x1b[31mnowhere\\u202e.wav" in shown.err
    for output in (shown.err, shown.out, (tmp_path / "out.json").read_text("utf-8")):
        assert output.replace("\n", "").isprintable()


def test_words_and_a_language_model(call_script, config, model, texts, tmp_path: Path) -> None:
    pytest.importorskip("flashlight.lib.text.decoder.kenlm", reason="needs flashlight-text (extra [lm])")
    (tmp_path / "words.txt").write_text("qxq\n")
    (tmp_path / "text.txt").write_text("ab\nyes\nno a\none two\n")
    write_language_model(tmp_path / "text.txt", tmp_path / "lm.arpa", order=2)
    config.decoding.update(words=str(tmp_path / "words.txt"), lm=str(tmp_path / "lm.arpa"), phrase_bonus=3.0)
    call_script(SCRIPT, config)
    search = SearchSettings(lm=tmp_path / "lm.arpa", phrase_bonus=3.0)
    expected = transcribe(model, config.dataset_manifest, words=[["qxq"]] * 4, search=search, progress=False)
    assert [line["pred_text"] for line in read_lines(Path(config.output_filename))] == expected
    assert expected != texts[None]
    config.output_filename = str(tmp_path / "words.txt")
    with pytest.raises(SystemExit, match="decoding.words"):
        call_script(SCRIPT, config)
    config.update(output_filename=str(tmp_path / "other.json"))
    config.decoding.beam_size = 0
    with pytest.raises(SystemExit, match="beam_size=0: expected a whole number of at least 1"):
        call_script(SCRIPT, config)
