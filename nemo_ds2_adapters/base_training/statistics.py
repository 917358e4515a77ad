"""What a training set's features are like: mean and deviation of each mel band."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from nemo_ds2_adapters.data.audio import read_audio
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.modules import StreamingMelPreprocessor

TARGET = f"{StreamingMelPreprocessor.__module__}.{StreamingMelPreprocessor.__qualname__}"
NAMES = ("feature_mean", "feature_std")


def with_statistics(section: Mapping[str, Any], utterances: Sequence[Utterance]) -> dict[str, Any]:
    """A config's section `preprocessor`, with statistics of the utterances where it wants some and has none.

    Args:
        section: as plain values; one that wants none, or has both, is given back.
        utterances: of the training set.

    Raises:
        InputError: a recording cannot be read.
    """
    if section.get("_target_") != TARGET or all(section.get(name) is not None for name in NAMES):
        return dict(section)
    options = {key: value for key, value in section.items() if key not in ("_target_", *NAMES)}
    bands = int(section["features"])
    preprocessor = StreamingMelPreprocessor([0.0] * bands, [1.0] * bands, **options).eval()
    count, total, squares = 0, torch.zeros(bands).double(), torch.zeros(bands).double()
    for utterance in tqdm(utterances, desc="features", unit="utt", leave=False):
        features = _features(preprocessor, utterance, int(section["sample_rate"])).double()
        count, total, squares = count + features.shape[1], total + features.sum(1), squares + features.square().sum(1)
    mean = total / max(count, 1)
    std = (squares / max(count, 1) - mean.square()).clamp(min=1e-10).sqrt()
    return {**section, "feature_mean": mean.tolist(), "feature_std": std.tolist()}


@torch.no_grad()
def _features(preprocessor: StreamingMelPreprocessor, utterance: Utterance, sample_rate: int) -> Tensor:
    """`[bands, T]`."""
    signal = torch.from_numpy(read_audio(utterance, sample_rate)).unsqueeze(0)
    features, lengths = preprocessor(input_signal=signal, length=torch.tensor([signal.shape[1]]))
    return features[0, :, : int(lengths)]
