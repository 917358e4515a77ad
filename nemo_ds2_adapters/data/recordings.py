"""What a program wants to have recognised: files, arrays, tensors or a manifest."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from nemo_ds2_adapters.data.audio import fitted
from nemo_ds2_adapters.data.manifest import MOST_SHOWN, BadLine, Utterance, is_file, read_lines
from nemo_ds2_adapters.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST_ENDINGS = (".json", ".jsonl")
FULL_SCALE = {np.dtype(f"int{bits}"): 2.0 ** (bits - 1) for bits in (8, 16, 32)}
AudioSource: TypeAlias = "str | os.PathLike[str] | np.ndarray | Tensor | Utterance | BadLine"


def is_manifest(audio: object) -> bool:
    """Whether `audio` is the path of a NeMo manifest, or its lines."""
    if isinstance(audio, str | os.PathLike):
        return os.fspath(audio).endswith(MANIFEST_ENDINGS)
    return isinstance(audio, list | tuple) and any(isinstance(item, Utterance | BadLine) for item in audio)


def open_recordings(audio: "AudioSource | Sequence[AudioSource]", sample_rate: int) -> list[Utterance | InputError]:
    """The utterances, none longer than its file; for one that cannot be opened, the reason.

    Args:
        audio: path of a file or a NeMo manifest, array or tensor `[T]` of samples, or a list of these except
            manifests; or the lines of a manifest.
        sample_rate: of arrays and tensors, Hz.
    """
    items: Sequence[AudioSource]
    if isinstance(audio, str | os.PathLike) and is_manifest(audio):
        items = read_lines(Path(audio), "audio", transcribed=False)
    else:
        items = list(audio) if isinstance(audio, list | tuple) else [audio]  # type: ignore[list-item]
    if not items:
        raise InputError("there is no audio: give at least one file, array or tensor")
    found: list[Utterance | InputError] = []
    for number, item in enumerate(items):
        try:
            found.append(fitted(_opened(item, f"audio[{number}]", sample_rate)))
        except InputError as error:
            found.append(error)
    return found


def _opened(item: AudioSource, place: str, sample_rate: int) -> Utterance:
    if isinstance(item, Utterance):
        return item
    if isinstance(item, BadLine):
        raise item
    if not isinstance(item, str | os.PathLike):
        samples = samples_of(item, place, "a path, or ")
        if not len(samples):
            raise InputError(f"{place}: there are no samples in it")
        return Utterance(Path(place), duration=len(samples) / sample_rate, samples=samples)
    if not is_file(item):
        raise InputError(f"{place}: audio file {str(item)[:MOST_SHOWN]} does not exist")
    return Utterance(Path(item))


def samples_of(item: object, place: str, or_other: str = "") -> np.ndarray:
    """An array or tensor of samples as float32 `[T]`, full scale is 1.

    Raises InputError: it is none; begins with `place`, and says what else is taken there.
    """
    torch = sys.modules.get("torch")  # who has a tensor has imported it; others need not
    if torch is not None and isinstance(item, torch.Tensor):
        try:
            item = (item.float() if item.is_floating_point() else item).detach().cpu().numpy()
        except (RuntimeError, TypeError) as error:
            raise InputError(f"{place}: a tensor that cannot become an array ({error})") from None
    if not isinstance(item, np.ndarray) or item.ndim != 1:
        what = f"shape {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
        raise InputError(f"{place}: {what}, expected {or_other}an array or tensor of samples [T]")
    if item.dtype in FULL_SCALE:
        return item.astype(np.float32) / np.float32(FULL_SCALE[item.dtype])
    if not np.issubdtype(item.dtype, np.floating):
        raise InputError(f"{place}: samples of type {item.dtype}, expected floats of -1 to 1, or int8, int16 or int32")
    with np.errstate(over="ignore"):  # what becomes infinite is refused when it is read
        return item.astype(np.float32)
