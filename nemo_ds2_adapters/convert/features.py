"""The input features of another toolkit as a NeMo preprocessor."""

from collections.abc import Mapping
from typing import Any

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules import LogSpectrogramPreprocessor

SPECTROGRAM = "nemo_ds2_adapters.modules.LogSpectrogramPreprocessor"
MEL = "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor"

# deepspeech.pytorch's own names; `pad_mode` depends on the librosa that the model was trained with.
DEEPSPEECH_PYTORCH = {
    "sample_rate": 16000,  # Hz
    "window_size": 0.02,  # seconds
    "window_stride": 0.01,  # seconds
    "window": "hamming",
    "pad_mode": "reflect",
}
# KoSpeech's own names
KOSPEECH = {
    "transform_method": "spect",
    "sample_rate": 16000,  # Hz
    "n_mels": 80,
    "frame_length": 20,  # ms
    "frame_shift": 10,  # ms
    "feature_extract_by": "torch",
    "normalize": False,
    "input_reverse": False,
}
NOT_IN_NEMO = {
    "mel": "decibels below the loudest value of the utterance, cut off at 80 dB (librosa), or powers of HTK mel bands "
    "(torchaudio)",
    "fbank": "Kaldi's filter banks, with frame-wise DC removal and pre-emphasis and a Povey window",
    "mfcc": "cepstral coefficients",
}


def spectrogram_features(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Config of a preprocessor for deepspeech.pytorch's spectrogram settings. Raises InputError: one is unknown or
    wrong."""
    values = _completed(settings, DEEPSPEECH_PYTORCH)
    return _checked({**values, "center": True, "normalize": True, "std_correction": 1})


def kospeech_features(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Config of a preprocessor for KoSpeech's audio settings. Raises InputError: none gives the same."""
    values = _completed(settings, KOSPEECH)
    method = {"spectrogram": "spect"}.get(values["transform_method"], values["transform_method"])
    if method != "spect" or values["feature_extract_by"] == "kaldi":
        what = NOT_IN_NEMO.get(method, "features that are not known here")
        what = "Kaldi's power spectrum" if method == "spect" else what
        raise InputError(
            f"features: transform_method={method}, feature_extract_by={values['feature_extract_by']} are {what}, "
            "which no preprocessor of NeMo computes; convert without features, then feed the original's as "
            "processed_signal, or train the model on with NeMo's mel bands"
        )
    if values["input_reverse"]:
        raise InputError("features: input_reverse=True, utterances backwards in time, is not possible in NeMo")
    return _checked(
        {
            "sample_rate": values["sample_rate"],
            "window_size": values["frame_length"] / 1000,
            "window_stride": values["frame_shift"] / 1000,
            "window": "hamming",
            "center": False,
            "pad_mode": "constant",
            "normalize": values["normalize"],
            "std_correction": 0,
        }
    )


def mel_features(bands: int) -> dict[str, Any]:
    """Config of NeMo's mel preprocessor in the sizes that KoSpeech uses: a place to train on from, no equal."""
    return {
        "_target_": MEL,
        "sample_rate": 16000,  # Hz
        "window_size": 0.02,  # seconds
        "window_stride": 0.01,  # seconds
        "window": "hann",
        "n_fft": 320,
        "features": bands,
        "normalize": "all_features",
        "preemph": None,
        "dither": 0.0,
        "pad_to": 0,
    }


def _completed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(settings) - set(defaults))
    if unknown:
        raise InputError(f"features: unknown {', '.join(unknown)}; expected {', '.join(defaults)}")
    for key, value in settings.items():
        kinds = (int, float) if isinstance(defaults[key], float) else (type(defaults[key]),)
        if type(value) not in kinds:
            raise InputError(f"features: {key}={value!r}, expected {kinds[0].__name__}")
    return {**defaults, **settings}


def _checked(arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        LogSpectrogramPreprocessor(**arguments)
    except ValueError as error:
        raise InputError(f"features: {error}") from error
    return {"_target_": SPECTROGRAM, **arguments}
