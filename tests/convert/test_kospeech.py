"""KoSpeech's state dicts, of models of many kinds."""

import sys
import types
import warnings
from pathlib import Path

import pytest
from torch import nn

from nemo_ds2_adapters import InputError, convert_checkpoint

SYLLABLES = [" ", "그", "이", "는"]


@pytest.fixture
def convert(tmp_path: Path):
    """Convert without the warning about unknown features."""

    def run(path: Path, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return convert_checkpoint(path, tmp_path / "out.nemo", **options)

    return run


@pytest.mark.parametrize(
    "options",
    [
        {"rnn_type": "gru", "activation": "hardtanh", "layers": 3},
        {"rnn_type": "lstm", "activation": "gelu", "hidden": 5, "bins": 40},
        {"rnn_type": "rnn", "activation": "swish", "layers": 1, "bins": 161},
        {"rnn_type": "lstm", "activation": "relu", "bidirectional": False},
    ],
)
def test_state_dict(kospeech, assert_same, save, convert, options: dict) -> None:
    original = kospeech(**options)
    dimensions = {"input_dim": options.get("bins", 80), "activation": options["activation"]}
    converted = convert(save(original.state_dict()), labels=SYLLABLES, **dimensions)
    assert_same(converted, original, dimensions["input_dim"], blank=4)
    assert list(converted.decoder.vocabulary) == SYLLABLES


def test_settings_beside_the_state_dict(kospeech, assert_same, save, convert) -> None:
    original = kospeech(activation="relu", bins=60)
    settings = {"input_dim": 60, "rnn_type": "gru", "bidirectional": True, "activation": "relu", "num_rnn_layers": 2}
    path = save({"state_dict": original.state_dict(), "hyper_parameters": settings})
    assert_same(convert(path, labels=SYLLABLES), original, 60, blank=4)


@pytest.mark.parametrize("zipped", [True, False], ids=["torch_1.6", "before_torch_1.6"])
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_whole_model(kospeech, assert_same, save, convert, monkeypatch, zipped: bool, parallel: bool) -> None:
    original = kospeech(activation="gelu")
    module = types.ModuleType("kospeech.models.deepspeech2.model")
    module.KoSpeech = type(original)
    monkeypatch.setattr(type(original), "__module__", module.__name__)
    with monkeypatch.context() as imported:
        for name in ("kospeech", "kospeech.models", "kospeech.models.deepspeech2"):
            imported.setitem(sys.modules, name, types.ModuleType(name))
        imported.setitem(sys.modules, module.__name__, module)
        whole = nn.DataParallel(original) if parallel else original
        path = save({"model": whole, "epoch": 3} if parallel else whole, _use_new_zipfile_serialization=zipped)
    assert_same(convert(path, labels=SYLLABLES, activation="gelu"), original, 80, blank=4)
    assert "kospeech" not in sys.modules


@pytest.mark.parametrize("blank", [0, 2, 4])
def test_blank_anywhere(kospeech, assert_same, save, convert, blank: int) -> None:
    original = kospeech()
    path = save(original.state_dict())
    assert_same(convert(path, labels=SYLLABLES, input_dim=80, blank_index=blank), original, 80, blank=blank)
    named = [*SYLLABLES[:blank], "<blank>", *SYLLABLES[blank:]]
    converted = convert(path, labels=named, input_dim=80)
    assert_same(converted, original, 80, blank=blank)
    assert list(converted.decoder.vocabulary) == SYLLABLES


def test_vocabulary_table(kospeech, assert_same, save, convert, tmp_path: Path) -> None:
    table = tmp_path / "vocabulary.csv"
    table.write_text('id,char,freq\n0,<pad>,0\n1, ,9\n2,그,7\n3,",",2\n', encoding="utf-8-sig")
    original = kospeech()
    converted = convert(save(original.state_dict()), labels=table, input_dim=80)
    assert_same(converted, original, 80, blank=4)
    assert list(converted.decoder.vocabulary) == ["<pad>", " ", "그", ","]


@pytest.mark.parametrize("bins", [80, 40, 161])
def test_usual_input_sizes_need_not_be_given(kospeech, assert_same, save, convert, bins: int) -> None:
    original = kospeech(bins=bins)
    assert_same(convert(save(original.state_dict()), labels=SYLLABLES), original, bins, blank=4)


@pytest.mark.parametrize(("labels", "parser"), [("그이는 ", "nfc"), ("각|", "nfd"), ("abc ", None)])
def test_unicode_form_of_transcripts(kospeech, save, convert, labels: str, parser: str | None) -> None:
    converted = convert(save(kospeech().state_dict()), labels=list(labels))
    assert converted.cfg.train_ds.get("parser") == parser and " " in converted.decoder.vocabulary


def test_unknown_features_are_said(kospeech, save, tmp_path: Path) -> None:
    path = save(kospeech().state_dict())
    with pytest.warns(UserWarning, match="features that the model was trained on are not known"):
        converted = convert_checkpoint(path, tmp_path / "out.nemo", labels=SYLLABLES, input_dim=80)
    assert converted.preprocessor.featurizer.nfilt == 80


def test_spectrogram_features(kospeech, assert_same, save, tmp_path: Path) -> None:
    original = kospeech(bins=161)
    features = {"transform_method": "spect", "frame_length": 20, "frame_shift": 10, "normalize": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        converted = convert_checkpoint(
            save(original.state_dict()), tmp_path / "out.nemo", labels=SYLLABLES, features=features
        )
    assert_same(converted, original, 161, blank=4)
    assert not converted.cfg.preprocessor.center and converted.cfg.preprocessor.std_correction == 0


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"transform_method": "fbank"}, "fbank.*Kaldi's filter banks"),
        ({"transform_method": "mel", "feature_extract_by": "librosa"}, "decibels below the loudest"),
        ({"transform_method": "mfcc"}, "cepstral"),
        ({"transform_method": "spect", "feature_extract_by": "kaldi"}, "Kaldi's power spectrum"),
        ({"transform_method": "spect", "input_reverse": True}, "input_reverse=True"),
        ({"transform_method": "spect", "del_silence": True}, "features: unknown del_silence"),
        ({"transform_method": "spect", "frame_length": "20"}, "frame_length='20', expected int"),
        ({"transform_method": "spect", "frame_length": 0}, "window_size=0.0"),
        ({"transform_method": "spect", "frame_length": 25}, "for input frames of 157 to 160 values, not 201"),
    ],
)
def test_refused_features(kospeech, save, tmp_path: Path, features: dict, message: str) -> None:
    path = save(kospeech(bins=160).state_dict())
    with pytest.raises(InputError, match=message):
        convert_checkpoint(path, tmp_path / "out.nemo", labels=SYLLABLES, features=features)
    assert not (tmp_path / "out.nemo").exists()
