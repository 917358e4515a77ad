"""ONNX and TorchScript: what an exported model gives for batches of unequal lengths."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from torch import Tensor

from nemo_ds2_adapters.modules import MLPAdapterConfig, MLPHeadAdapterConfig

TOLERANCE = 1e-4
FRAMES_AND_LENGTHS = ((77, [77, 31, 50]), (90, [2, 60]), (21, [21]))  # padded frames, real frames
OPTIONS = {
    "both_directions_summed": {"bidirectional": True, "bidirectional_merge": "sum"},
    "both_directions_concatenated": {"bidirectional": True, "bidirectional_merge": "concat"},
    "forward_only": {"bidirectional": False},
    "look_ahead": {"bidirectional": False, "lookahead_context": 5},
}
OTHERS = {
    "three_convolutions": {"conv_channels": [2, 2, 3], "conv_bias": False, "activation": "gelu"},
    "no_norm": {"batch_norm": False},
    "norm_and_relu_first": {"first_layer_norm": True, "norm_relu": True},
    "relu_recurrence": {"rnn_type": "rnn", "rnn_nonlinearity": "relu"},
}


def batches(feat_in: int) -> list[tuple[Tensor, Tensor]]:
    """Features with noise, not zeros, beyond the real frames."""
    return [(torch.randn(len(lengths), feat_in, t), torch.tensor(lengths)) for t, lengths in FRAMES_AND_LENGTHS]


def assert_same(model: EncDecCTCModel, run: Callable[[Tensor, Tensor], list[np.ndarray]]) -> None:
    for features, lengths in batches(model.encoder._feat_in):
        with torch.no_grad():
            expected, expected_lengths, _ = model(processed_signal=features, processed_signal_length=lengths)
        log_probs, encoded_lengths = run(features, lengths)
        assert encoded_lengths.tolist() == expected_lengths.tolist()
        for row, length in enumerate(encoded_lengths):
            np.testing.assert_allclose(log_probs[row, :length], expected[row, :length], rtol=0, atol=TOLERANCE)


def export_onnx(model: EncDecCTCModel, folder: Path) -> Callable[[Tensor, Tensor], list[np.ndarray]]:
    model.export(str(folder / "ds2.onnx"))
    session = onnxruntime.InferenceSession(str(folder / "ds2.onnx"))
    assert [output.name for output in session.get_outputs()] == ["logprobs", "encoded_lengths"]
    return lambda features, lengths: session.run(None, {"audio_signal": features.numpy(), "length": lengths.numpy()})


def export_torchscript(model: EncDecCTCModel, folder: Path) -> Callable[[Tensor, Tensor], list[np.ndarray]]:
    model.export(str(folder / "ds2.ts"))
    script = torch.jit.load(folder / "ds2.ts")
    return lambda features, lengths: [output.numpy() for output in script(features, lengths)]


@pytest.mark.parametrize("export", [export_onnx, export_torchscript])
@pytest.mark.parametrize("directions", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("rnn_type", ["gru", "lstm", "rnn"])
def test_base_and_adapter(
    make_model, disturb, tmp_path: Path, rnn_type: str, directions: dict[str, object], export
) -> None:
    model = make_model(encoder={"rnn_type": rnn_type, **directions})
    assert_same(model, export(model, tmp_path))
    model.add_adapter("user", MLPAdapterConfig(hidden_dims=[4], layers="all"))
    disturb(model, "user")
    assert_same(model, export(model, tmp_path))


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_other_options(make_model, tmp_path: Path, options: dict[str, object]) -> None:
    model = make_model(encoder=options, decoder={"norm": "layer"})
    assert_same(model, export_onnx(model, tmp_path))


@pytest.mark.parametrize("mode", ["add", "replace"])
def test_head_adapter(make_model, disturb, tmp_path: Path, mode: str) -> None:
    model = make_model()
    model.add_adapter("decoder:user", MLPHeadAdapterConfig(hidden_dims=[4], mode=mode))
    disturb(model, "user")
    assert_same(model, export_onnx(model, tmp_path))


@pytest.mark.parametrize("export", [export_onnx, export_torchscript])
def test_the_graph_holds_the_enabled_adapter_only(make_model, disturb, tmp_path: Path, export) -> None:
    model = make_model()
    model.add_adapter("user", MLPAdapterConfig(hidden_dims=[4]))
    disturb(model, "user")
    adapted = export(model, tmp_path)
    model.set_enabled_adapters(enabled=False)
    base = export(model, tmp_path)
    assert_same(model, base)
    features, lengths = batches(16)[0]
    assert abs(base(features, lengths)[0] - adapted(features, lengths)[0]).max() > 100 * TOLERANCE


def test_encoder_and_decoder_apart(make_model, tmp_path: Path) -> None:
    model = make_model()
    model.encoder.export(str(tmp_path / "encoder.onnx"))
    model.decoder.export(str(tmp_path / "decoder.onnx"))
    encoder, decoder = (onnxruntime.InferenceSession(str(tmp_path / f"{n}.onnx")) for n in ("encoder", "decoder"))

    def run(features: Tensor, lengths: Tensor) -> list[np.ndarray]:
        encoded, encoded_lengths = encoder.run(None, {"audio_signal": features.numpy(), "length": lengths.numpy()})
        log_probs, real_frames = decoder.run(None, {"encoder_output": encoded})
        assert real_frames.tolist() == encoded_lengths.tolist()
        return [log_probs, encoded_lengths]

    assert_same(model, run)


def test_exporting_leaves_the_model_as_it_was(make_model, batch: dict[str, Tensor], tmp_path: Path) -> None:
    model = make_model()
    with torch.no_grad():
        before = model(**batch)[0]
        export_onnx(model, tmp_path)
        assert torch.equal(model(**batch)[0], before)
    assert len(model(**batch)) == 3
