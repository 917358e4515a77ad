"""What is wrong with recordings, told before time is spent on them."""

from collections.abc import Iterator
from itertools import pairwise
from math import ceil

import numpy as np
import soundfile
from nemo.collections.asr.models import ASRModel
from tqdm import tqdm

from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules.unicode_form import normalised

CLIPPED_LEVEL = 0.999  # of full scale
CLIPPED_SHARE = 0.001  # of the samples
SILENT_DBFS = -60.0  # root mean square level


def check_recordings(key: str, utterances: list[Utterance], model: ASRModel, progress: bool = True) -> Iterator[str]:
    """Read every recording and summarise the findings.

    Args:
        key: config key of the manifest, for messages.
        utterances: what to read.
        model: whose frame rate decides how many output units fit into an utterance.
        progress: show a bar.

    Yields:
        lines for a person: total seconds first, then one line per kind of finding.

    Raises:
        InputError: a recording cannot be read.
    """
    findings: dict[str, list[str]] = {"clipped": [], "silent": [], "transcript longer than its frames allow": []}
    for utterance in tqdm(utterances, desc="checking recordings", leave=False, disable=not progress):
        samples = _read(key, utterance)
        if np.mean(np.abs(samples) >= CLIPPED_LEVEL) > CLIPPED_SHARE:
            findings["clipped"].append(utterance.audio.name)
        if np.sqrt(np.mean(samples**2)) < 10 ** (SILENT_DBFS / 20):
            findings["silent"].append(utterance.audio.name)
        if _frames(utterance.duration, model) < _needed_frames(utterance.text, model):
            findings["transcript longer than its frames allow"].append(utterance.audio.name)
    seconds = sum(utterance.duration for utterance in utterances)
    yield f"{key}: {len(utterances)} utterances, {seconds:.1f} s"
    for finding, names in findings.items():
        if names:
            yield f"  {finding}: {len(names)} of {len(utterances)}, for example {', '.join(names[:3])}"


def _read(key: str, utterance: Utterance) -> np.ndarray:
    try:
        with soundfile.SoundFile(utterance.audio) as audio:
            audio.seek(int(utterance.offset * audio.samplerate))
            samples = audio.read(int(utterance.duration * audio.samplerate), dtype="float32")
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise InputError(f"{key}: {utterance.audio} cannot be read as audio ({error})") from None
    if len(samples) == 0:
        raise InputError(f"{key}: {utterance.audio} has no samples at {utterance.offset} s")
    return samples


def _frames(seconds: float, model: ASRModel) -> int:
    """Output frames of an utterance."""
    stride = float(model.cfg.preprocessor.get("window_stride", 0.01))  # seconds
    subsampling = getattr(model.encoder, "subsampling_factor", 1)
    return ceil(seconds / stride / subsampling)


def _needed_frames(text: str, model: ASRModel) -> int:
    """Frames CTC needs: one per unit, and a blank between equal neighbours (Graves et al. 2006)."""
    units = model.tokenizer.text_to_ids(text) if hasattr(model, "tokenizer") else normalised(text, model)
    return len(units) + sum(a == b for a, b in pairwise(units))
