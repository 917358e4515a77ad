"""Tiny models: a DeepSpeech2 and a Conformer, both with CTC heads that hold adapters."""

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import OmegaConf

import nemo_ds2_adapters  # noqa: F401

LABELS = [" ", "a", "b", "c"]

DEEPSPEECH2 = {
    "_target_": "nemo_ds2_adapters.modules.DeepSpeech2EncoderAdapter",
    "feat_in": 16,
    "n_layers": 2,
    "d_model": 4,
    "conv_channels": [2, 2],
}
CONFORMER = {
    "_target_": "nemo.collections.asr.modules.conformer_encoder.ConformerEncoderAdapter",
    "feat_in": 16,
    "n_layers": 2,
    "d_model": 8,
    "n_heads": 2,
    "subsampling": "striding",
    "subsampling_factor": 4,
    "subsampling_conv_channels": 4,
}


def ctc_config(encoder, labels=LABELS):
    """Config of a CTC model around an encoder config."""
    decoder = {
        "_target_": "nemo_ds2_adapters.modules.DeepSpeech2Decoder",
        "feat_in": None,
        "num_classes": -1,
        "vocabulary": labels,
    }
    if encoder["_target_"].startswith("nemo."):
        decoder["_target_"] = "nemo.collections.asr.modules.ConvASRDecoder"
    return OmegaConf.create(
        {
            "sample_rate": 16000,
            "labels": labels,
            "preprocessor": {
                "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
                "sample_rate": 16000,
                "normalize": "per_feature",
                "window_size": 0.025,
                "window_stride": 0.01,
                "features": 16,
                "n_fft": 512,
                "dither": 0.00001,
                "pad_to": 0,
            },
            "encoder": encoder,
            "decoder": decoder,
            "decoding": {"strategy": "greedy_batch"},
        }
    )


def build(encoder=None, labels=LABELS, seed=0):
    """A CTC model in eval mode with random weights."""
    torch.manual_seed(seed)
    return EncDecCTCModel(cfg=ctc_config(dict(encoder or DEEPSPEECH2), labels)).eval()


@pytest.fixture(params=["deepspeech2", "conformer"])
def model(request):
    return build(DEEPSPEECH2 if request.param == "deepspeech2" else CONFORMER)


@pytest.fixture
def ds2():
    return build()


@pytest.fixture
def features():
    torch.manual_seed(1)
    return torch.randn(2, 16, 40), torch.tensor([40, 31])


@pytest.fixture
def logprobs(features):
    """What a model makes of the features, `[B, T, V]`."""

    def run(model):
        with torch.no_grad():
            signal, lengths = features
            return model(processed_signal=signal, processed_signal_length=lengths)[0]

    return run
