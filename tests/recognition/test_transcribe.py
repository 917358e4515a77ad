"""Transcription of recordings of many users."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters import InputError, enabled_adapters
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.enabling import enabled_names
from nemo_ds2_adapters.data.manifest import read_lines
from nemo_ds2_adapters.errors import AdapterNameError, UnknownUserError
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.recognition.transcribe import transcribe
from nemo_ds2_adapters.recognition.windows import Window, join_windows, plan_windows
from nemo_ds2_adapters.store.store import AdapterStore

RATE = 16000  # Hz
HALF = (torch.float16, torch.bfloat16)


def alone(model: EncDecCTCModel, path: str, name: str | None) -> str:
    """NeMo's own transcription of one file, with one adapter enabled."""
    samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    with enabled_adapters(model, name), torch.no_grad():
        log_probs, lengths, _ = model(input_signal=samples[None], input_signal_length=torch.tensor([len(samples)]))
    return model.decoding.ctc_decoder_predictions_tensor(log_probs, decoder_lengths=lengths)[0].text


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_each_with_its_adapter(talkative, paths: list[str], batch_size: int) -> None:
    names = ["first_0", None, "own_head_0", "first_0"]
    expected = [alone(talkative, path, name) for path, name in zip(paths, names)]
    assert len(set(expected)) == 4
    assert transcribe(talkative, paths, names, batch_size=batch_size, progress=False) == expected
    assert transcribe(talkative, paths, batch_size=batch_size, progress=False) == [
        alone(talkative, path, None) for path in paths
    ]
    with enabled_adapters(talkative, "own_head_0"):  # the model as it is, unless adapters are named
        assert transcribe(talkative, paths[0], progress=False) == [alone(talkative, paths[0], "own_head_0")]
        assert transcribe(talkative, paths[0], ["first_0"], progress=False) == expected[:1]
        assert enabled_names(talkative) == ["own_head_0"]


def test_every_kind_of_input(talkative, paths: list[str], tmp_path: Path) -> None:
    expected = [alone(talkative, path, None) for path in paths]
    samples = [soundfile.read(path, dtype="float32")[0] for path in paths]
    mixed = [Path(paths[0]), samples[1], torch.from_numpy(samples[2]), paths[3]]
    assert transcribe(talkative, mixed, progress=False) == expected
    assert transcribe(talkative, samples[0], progress=False) == expected[:1]
    integers = (samples[0] * 32768).astype(np.int16)
    assert transcribe(talkative, [integers], progress=False) == expected[:1]

    both = np.concatenate(samples[:2])
    soundfile.write(tmp_path / "both.wav", np.stack([both, both], axis=1), RATE)
    seconds = [len(each) / RATE for each in samples]
    lines = [
        {"audio_filepath": "both.wav", "duration": seconds[0]},
        {"audio_filepath": "both.wav", "offset": seconds[0]},
        {"audio_filepath": paths[2], "speaker": "ignored without a store"},
    ]
    (tmp_path / "manifest.json").write_text("\n".join(map(json.dumps, lines)))
    assert transcribe(talkative, tmp_path / "manifest.json", progress=False) == expected[:3]


def test_manifest_that_names_users(talkative, paths: list[str], tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    store.put("ann", talkative, "first_0")
    store.put("김", talkative, "own_head_0")
    fields = [{"speaker": "ann"}, {"adapter": None, "speaker": "ann"}, {"adapter": "김"}, {}]
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(json.dumps({"audio_filepath": p, **field}) for p, field in zip(paths, fields)))
    names = ["first_0", None, "own_head_0", None]
    expected = [alone(talkative, p, name) for p, name in zip(paths, names)]
    assert transcribe(talkative, path, store=store, progress=False) == expected
    bank = AdapterBank(talkative, store)
    assert transcribe(talkative, path, store=bank, progress=False) == expected
    assert bank.statistics.loads == 2
    names = ["first_0", "first_0", None, None]
    expected = [alone(talkative, p, name) for p, name in zip(paths, names)]
    assert transcribe(talkative, path, store=tmp_path / "store", adapter_key="speaker", progress=False) == expected
    assert transcribe(talkative, paths, ["ann", "ann", None, None], store, progress=False) == expected


def test_people_without_an_adapter_get_the_default(talkative, paths: list[str], tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    store.put("ann", talkative, "first_0")
    default = attached_adapter(talkative, "own_head_0")
    names = ["first_0", "own_head_0", None, "own_head_0"]
    expected = [alone(talkative, path, name) for path, name in zip(paths, names)]
    users = ["ann", "new", None, "newer"]
    assert transcribe(talkative, paths, users, store, default=default, progress=False) == expected
    assert transcribe(talkative, paths, users, AdapterBank(talkative, store, default), progress=False) == expected
    with pytest.raises(InputError, match="beside a bank"):
        transcribe(talkative, paths, users, AdapterBank(talkative, store), default=default, progress=False)
    with pytest.raises(InputError, match="not who speaks"):
        transcribe(talkative, paths, default=default, progress=False)


def test_timestamps_and_confidence(talkative, paths: list[str]) -> None:
    before = str(talkative.cfg.decoding)
    plain = transcribe(talkative, paths, progress=False)
    (hypothesis, *_) = transcribe(talkative, paths, timestamps=True, confidence=True, progress=False)
    assert hypothesis.text == plain[0]
    words = hypothesis.timestamp["word"]
    assert [word["word"] for word in words] == plain[0].split()
    assert json.loads(json.dumps(hypothesis.timestamp["char"]))
    assert 0 <= words[0]["start"] < words[-1]["end"] <= 0.42
    assert len(hypothesis.word_confidence) == len(words) and 0 < hypothesis.word_confidence[0] <= 1
    assert transcribe(talkative, paths[0], return_hypotheses=True, progress=False)[0].text == plain[0]
    assert str(talkative.cfg.decoding) == before


def test_modes_are_left_alone(talkative, paths: list[str]) -> None:
    talkative.train()
    talkative.encoder.eval()
    modes = [module.training for module in talkative.modules()]
    transcribe(talkative, paths, ["first_0"] * 4, progress=False)
    assert [module.training for module in talkative.modules()] == modes
    with pytest.raises(AdapterNameError):
        transcribe(talkative, paths, ["nobody"] * 4, progress=False)
    assert [module.training for module in talkative.modules()] == modes


@pytest.mark.parametrize("frames", [1.0, 100.0, 100.5, 101.3, 1234.5])
@pytest.mark.parametrize("overlap", [0, 7, 50])
def test_windows_cover_every_frame_once(frames: float, overlap: int) -> None:
    windows = plan_windows(frames, 100, overlap)
    everything = np.arange(int(frames))[:, None]
    joined = join_windows(windows, [everything[window.start : window.stop] for window in windows])
    assert np.array_equal(joined, everything)
    for one, other in pairwise(windows):
        assert one.stop is not None and one.stop - other.start >= overlap
    assert all(window.stop is None or window.stop - window.start == 100 for window in windows)
    assert windows == [Window()] or frames > 100


def test_long_recordings(talkative) -> None:
    noise = 0.1 * torch.randn(12 * RATE)
    cut = transcribe(
        talkative, noise, ["first_0"], timestamps=True, max_seconds=5.0, overlap_seconds=1.0, progress=False
    )
    windows = plan_windows(600, 250, 50)  # an output frame is 20 ms
    assert len(windows) == 3
    outputs = []
    for window in windows:
        part = noise[window.start * 320 : None if window.stop is None else window.stop * 320]
        with torch.no_grad(), enabled_adapters(talkative, "first_0"):
            output, length, _ = talkative(input_signal=part[None], input_signal_length=torch.tensor([len(part)]))
        outputs.append(output[0, : length[0]].numpy())
    joined = join_windows(windows, outputs)
    assert len(joined) == 600
    expected = talkative.decoding.ctc_decoder_predictions_tensor(
        torch.from_numpy(joined)[None], decoder_lengths=torch.tensor([600])
    )
    assert cut[0].text == expected[0].text and len(cut[0].text) > 100
    assert 11 < cut[0].timestamp["char"][-1]["end"] <= 12.02


def test_what_cannot_be_transcribed_does_not_stop_the_rest(talkative, paths: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    lines = [
        json.dumps({"audio_filepath": paths[0], "adapter": "first_0"}),
        json.dumps({"audio_filepath": "nowhere.wav"}),
        "no JSON",
        json.dumps({"audio_filepath": "text.wav"}),
        json.dumps({"audio_filepath": "empty.wav"}),
        json.dumps({"audio_filepath": paths[1], "adapter": "nobody"}),
        json.dumps({"audio_filepath": paths[1], "adapter": ["first_0"]}),
        json.dumps({"audio_filepath": paths[1], "offset": 7}),
        json.dumps({"audio_filepath": paths[2]}),
    ]
    path = tmp_path / "manifest.json"
    path.write_text("\n".join(lines))
    errors: dict[int, str] = {}
    texts = transcribe(talkative, path, progress=False, on_error=errors.__setitem__)
    assert texts[0] == alone(talkative, paths[0], "first_0") and texts[8] == alone(talkative, paths[2], None)
    assert texts[1:8] == [None] * 7 and sorted(errors) == list(range(1, 8))
    for number, message in {
        1: "line 2: audio file nowhere.wav does not exist",
        2: "line 3: not a JSON object",
        3: "line 4: text.wav cannot be read as audio",
        4: "line 5: empty.wav has no samples",
        5: "there is no adapter 'nobody'",
        6: "line 7: adapter=['first_0'], expected text",
        7: "line 8: utterance1.flac has no samples at 7 s",
    }.items():
        assert message in errors[number]
    with pytest.raises(InputError, match="line 2: audio file nowhere.wav"):
        transcribe(talkative, path, progress=False)


def test_samples_of_other_types(talkative, paths: list[str]) -> None:
    samples = torch.from_numpy(soundfile.read(paths[3], dtype="float32")[0])
    expected = {kind: transcribe(talkative, samples.to(kind).float(), progress=False) for kind in HALF}
    for kind in HALF:
        assert transcribe(talkative, samples.to(kind), progress=False) == expected[kind]
    same = transcribe(talkative, samples, progress=False)
    for given in (samples.double(), (samples * 2**31).double().round().to(torch.int32), samples.requires_grad_()):
        assert transcribe(talkative, given, progress=False) == same


def test_wrong_samples_do_not_stop_the_rest(talkative, paths: list[str]) -> None:
    broken = [
        torch.zeros(9).to_sparse(),
        np.zeros(9, np.int64),
        np.full(9, np.nan),
        torch.zeros(9, device="meta"),
        7,
    ]
    errors: dict[int, str] = {}
    texts = transcribe(talkative, [*broken, paths[0]], progress=False, on_error=errors.__setitem__)
    assert sorted(errors) == list(range(5)) and texts == [None] * 5 + [alone(talkative, paths[0], None)]


def test_nothing_is_cut_without_a_longest_window(talkative) -> None:
    noise = 0.1 * torch.randn(6 * RATE)
    whole = transcribe(talkative, noise, max_seconds=100.0, progress=False)
    assert transcribe(talkative, noise, max_seconds=float("inf"), progress=False) == whole
    assert transcribe(talkative, noise, max_seconds=2.0, overlap_seconds=0.5, progress=False) != whole


def test_lines_that_were_read_before(talkative, paths: list[str], tmp_path: Path) -> None:
    """A program that needs the lines itself reads its manifest once."""
    lines = [json.dumps({"audio_filepath": paths[0], "adapter": "first_0"}), "no JSON"]
    (tmp_path / "m.json").write_text("\n".join(lines))
    read = read_lines(tmp_path / "m.json", "manifest", transcribed=False)
    errors: dict[int, str] = {}
    texts = transcribe(talkative, read, progress=False, on_error=errors.__setitem__)
    assert texts == [alone(talkative, paths[0], "first_0"), None] and list(errors) == [1]


def test_short_recordings(talkative) -> None:
    for samples in (1, 100, 1599):
        assert isinstance(transcribe(talkative, np.zeros(samples, np.float32), progress=False)[0], str)


@pytest.mark.parametrize(
    ("audio", "settings", "message"),
    [
        ([], {}, "there is no audio"),
        ("two", {"adapters": ["first_0"]}, "1 adapters for 2 utterances"),
        ("two", {"adapters": "first_0"}, "one name for 2 utterances"),
        ("two", {"batch_size": 0}, "batch_size=0"),
        ("two", {"max_seconds": 4.0, "overlap_seconds": 3.0}, "overlap_seconds=3.0"),
        ("two", {"adapter_key": "speaker"}, "adapter_key=speaker names a field of a manifest"),
        ([np.zeros((2, 9), np.float32)], {}, r"audio\[0\]: shape \(2, 9\), expected"),
        ([7], {}, r"audio\[0\]: int, expected"),
        (None, {}, r"audio\[0\]: NoneType, expected"),
        ([np.full(9, np.nan, np.float32)], {}, "not finite"),
        ([np.full(9, 1e300)], {}, "not finite"),
        (
            [np.zeros(9, np.int64)],
            {},
            r"audio\[0\]: samples of type int64, expected floats of -1 to 1, or",
        ),
        ([np.zeros(9, np.uint8)], {}, r"audio\[0\]: samples of type uint8"),
        ([np.zeros(9, complex)], {}, r"audio\[0\]: samples of type complex128"),
        ([np.array(["a"])], {}, r"audio\[0\]: samples of type <U1"),
        ([torch.zeros(9).to_sparse()], {}, r"audio\[0\]: a tensor that cannot become an array"),
        ([torch.zeros(9, device="meta")], {}, r"audio\[0\]: a tensor that cannot become an array"),
        (["x" * 5000], {}, r"audio\[0\]: audio file x+ does not exist"),
        ([""], {}, r"audio\[0\]: audio file  does not exist"),
        ("two", {"max_seconds": 0.01, "overlap_seconds": 0.0}, "max_seconds=0.01, .*at least 1 s"),
        ("two", {"max_seconds": float("nan")}, "max_seconds=nan"),
        ("two", {"max_seconds": "long"}, "max_seconds=long"),
        ("two", {"overlap_seconds": float("inf")}, "overlap_seconds=inf"),
        ("nowhere.wav", {}, "nowhere.wav does not exist"),
        ("nowhere.json", {}, "audio=nowhere.json: no such file"),
        ("manifest", {"adapter_key": "person"}, "no line of the manifest has a field person"),
    ],
)
def test_wrong_input(talkative, paths: list[str], manifest: Path, audio, settings, message: str) -> None:
    given = {"two": paths[:2], "manifest": manifest}.get(audio, audio) if isinstance(audio, str) else audio
    with pytest.raises(InputError, match=message):
        transcribe(talkative, given, progress=False, **settings)


def test_wrong_stores(talkative, paths: list[str], tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    with pytest.raises(InputError, match="not who speaks"):
        transcribe(talkative, paths, store=store, progress=False)
    with pytest.raises(UnknownUserError, match="'ann'"):
        transcribe(talkative, paths[:1], ["ann"], store, progress=False)
    with pytest.raises(InputError, match="there is no adapter store"):
        transcribe(talkative, paths[:1], ["ann"], tmp_path / "elsewhere", progress=False)
    with pytest.raises(InputError, match="expected a NeMo CTC model"):
        transcribe(talkative.encoder, paths, progress=False)
