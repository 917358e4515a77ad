"""Wrong and hostile files, and options that contradict them: one error that names the thing, and nothing written."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nemo_ds2_adapters import AdapterFileError, InputError, convert_checkpoint

OPTIONS: dict[str, Any] = {"labels": ["_", "a", "b", "c", "d"], "features": {"sample_rate": 8000}}


class Attack:
    """Pickled, it makes a directory when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def error(tmp_path: Path):
    """The one line that a conversion ends with."""

    def convert(path: Path, **options: Any) -> str:
        with pytest.raises(InputError) as caught:
            convert_checkpoint(path, tmp_path / "out.nemo", **{**OPTIONS, **options})
        assert not (tmp_path / "out.nemo").exists()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return convert


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["beside", "in settings", "as weight"])
def test_hostile_file(deepspeech_pytorch, error, save, tmp_path: Path, place: str, zipped: bool) -> None:
    state, attack = deepspeech_pytorch().state_dict(), Attack(tmp_path / "owned")
    content: dict[str, Any] = {"state_dict": state, "hyper_parameters": {"labels": ["_"]}}
    if place == "beside":
        content["callbacks"] = attack
    elif place == "in settings":
        content["hyper_parameters"]["spect_cfg"] = attack
    else:
        state["conv.seq_module.0.weight"] = attack
    path = save(content, _use_new_zipfile_serialization=zipped)
    message = error(path)
    assert str(path) in message and "posix.mkdir" in message and "nothing was executed" in message
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("call", ["eval", "exec", "getattr", "__import__"])
def test_built_in_functions(error, tmp_path: Path, call: str) -> None:
    path = tmp_path / "old.ckpt"
    torch.save({}, path, _use_new_zipfile_serialization=False)
    program = b"c__builtin__\n" + call.encode() + b"\nX\x03\x00\x00\x001+1\x85R."
    path.write_bytes(path.read_bytes().replace(b"}q\x00.", program))
    assert f"__builtin__.{call}" in error(path)


@pytest.mark.parametrize("instruction", [b"\x8e", b"\x8d", b"\x96"])
def test_a_size_that_the_file_does_not_have(error, tmp_path: Path, instruction: bytes) -> None:
    path = tmp_path / "old.ckpt"
    torch.save({}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"}q\x00.", instruction + (2**60).to_bytes(8, "little") + b"."))
    assert "old.ckpt" in error(path)


def test_damaged_files(deepspeech_pytorch, error, save, tmp_path: Path) -> None:
    assert "cannot be read" in error(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    assert "text.ckpt" in error(tmp_path / "text.ckpt")
    (tmp_path / "bare.ckpt").write_bytes(pickle.dumps({"state_dict": {}}, protocol=2))
    assert "bare.ckpt" in error(tmp_path / "bare.ckpt")
    for zipped in (True, False):
        whole = save(deepspeech_pytorch().state_dict(), _use_new_zipfile_serialization=zipped).read_bytes()
        for size in (1, 100, len(whole) // 2, len(whole) - 1):
            (tmp_path / "cut.ckpt").write_bytes(whole[:size])
            assert "cut.ckpt" in error(tmp_path / "cut.ckpt")


def test_files_of_something_else(error, save) -> None:
    assert "neither of deepspeech.pytorch nor of KoSpeech" in error(save(nn.Sequential(nn.Linear(2, 2))))
    assert "holds no state dict" in error(save(nn.ReLU()))
    assert "holds no state dict" in error(save({"epoch": 3}))
    assert "not a state dict" in error(save([1, 2]))
    assert "neither of deepspeech.pytorch nor of KoSpeech" in error(save({"linear.weight": torch.ones(2)}))


def test_missing_and_unexpected_weights_are_listed(deepspeech_pytorch, kospeech, error, save) -> None:
    weights = deepspeech_pytorch().state_dict()
    del weights["rnns.1.rnn.bias_hh_l0"], weights["fc.0.module.0.weight"]
    weights["rnns.0.batch_norm.module.weight"] = torch.ones(3)
    weights["conv.seq_module.1.weight"] = torch.ones(7)
    message = error(save(weights))
    assert "missing: fc.0.module.0.weight, rnns.1.rnn.bias_hh_l0" in message
    assert "unexpected: rnns.0.batch_norm.module.weight" in message
    assert "of another shape: conv.seq_module.1.weight [7] (expected [4])" in message

    older_head = kospeech().state_dict()
    older_head["fc.2.linear.weight"] = torch.ones(5, 12)
    assert "unexpected: fc.2.linear.weight" in error(save(older_head), features=None, input_dim=80)


@pytest.mark.parametrize("name", ["conv.seq_module.3.weight", "rnns.0.rnn.weight_hh_l0", "fc.0.module.1.weight"])
def test_weights_that_sizes_are_read_off(deepspeech_pytorch, error, save, name: str) -> None:
    weights = deepspeech_pytorch().state_dict()
    value = weights.pop(name)
    assert f"has no {name}" in error(save(weights))
    assert f"{name} has shape" in error(save({**weights, name: value.flatten()}))


def test_forward_only_without_look_ahead(deepspeech_pytorch, error, save) -> None:
    weights = deepspeech_pytorch(bidirectional=False).state_dict()
    del weights["lookahead.0.conv.weight"]
    assert "has no lookahead.0.conv.weight" in error(save(weights))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rnn_type": "lstm"}, "rnn_type=lstm, but the weights are of rnn_type=gru"),
        ({"bidirectional": False}, "bidirectional=False, but the weights are of bidirectional=True"),
        ({"activation": "sine"}, "activation=sine: expected hardtanh or one of"),
        ({"labels": None}, "labels: the file has none"),
        ({"labels": ["a", "b"]}, "labels: 2 of them, but the output layer has 5 classes"),
        ({"labels": ["_", "a", "A", "a", "b"]}, "labels: 'a' occurs more than once"),
        ({"labels": [1, 2, 3, 4, 5]}, "labels: expected a list of texts"),
        ({"labels": "nowhere.json"}, "labels=nowhere.json: cannot be read"),
        ({"blank_index": 5}, "blank_index=5: expected 0 to 4"),
        ({"input_dim": 80}, "input_dim=80, but the spectrogram's settings are of input_dim=81"),
        ({"features": {"sample_rate": 16000}}, "for input frames of 81 to 84 values, not 161"),
        ({"features": {"window": "kaiser"}}, "window='kaiser' is unknown"),
        ({"features": {"windows": "hann"}}, "features: unknown windows; expected sample_rate"),
        ({"features": {"sample_rate": True}}, "sample_rate=True, expected int"),
    ],
)
def test_options(deepspeech_pytorch, error, save, options: dict[str, Any], message: str) -> None:
    assert message in error(save(deepspeech_pytorch().state_dict()), **options)


def test_settings_of_the_file_that_contradict_its_weights(deepspeech_pytorch, kospeech, error, save) -> None:
    package = {"state_dict": deepspeech_pytorch().state_dict(), "rnn_type": "lstm"}
    assert "rnn_type=lstm, but the weights are of rnn_type=gru" in error(save(package))
    package = {"state_dict": kospeech().state_dict(), "hyper_parameters": {"bidirectional": False, "input_dim": 80}}
    assert "of bidirectional=True" in error(save(package), features=None)


def test_output_file(deepspeech_pytorch, save, tmp_path: Path) -> None:
    path = save(deepspeech_pytorch().state_dict())
    with pytest.raises(InputError, match="expected a name that ends with .nemo"):
        convert_checkpoint(path, tmp_path / "out.pt", **OPTIONS)
    with pytest.raises(AdapterFileError, match="cannot be written"):
        convert_checkpoint(path, tmp_path / "nowhere" / "out.nemo", **OPTIONS)


def test_nested_settings_do_not_fill_the_memory(deepspeech_pytorch, error, save) -> None:
    nested: Any = {"sample_rate": 8000}
    for _ in range(200):
        nested = {"spect_cfg": nested, "again": nested}
    buffer = io.BytesIO()
    torch.save({"state_dict": deepspeech_pytorch().state_dict(), "hyper_parameters": nested}, buffer)
    path = save(None)
    path.write_bytes(buffer.getvalue())
    assert "labels" in error(path, labels=None)


@pytest.mark.parametrize("place", range(5))
def test_old_format_with_something_else_in_each_place(error, tmp_path: Path, place: int) -> None:
    parts: list[Any] = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, []]
    for other in (None, 7, [1], {"a": None}, "x"):
        parts[place] = other
        path = tmp_path / "old.ckpt"
        path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
        assert "old.ckpt" in error(path)
