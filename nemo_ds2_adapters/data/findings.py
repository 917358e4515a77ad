"""What is wrong with recordings, told before time is spent on them."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from math import ceil

import numpy as np
from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.data.audio import read_audio
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.modules.unicode_form import normalised

CLIPPED_LEVEL = 0.999  # of full scale
CLIPPED_SHARE = 0.001  # of the samples
SILENT_DBFS = -60.0  # root mean square level
MISSING_SECONDS = 0.1  # of what the manifest promises; less is rounding


@dataclass
class Findings:
    """What recordings are like.

    Args:
        sounds: of each utterance, a hash of its samples; None for silence.
        seconds: of sound, all together.
        names: of utterances, by the kind of finding.
    """

    sounds: list[str | None] = field(default_factory=list)
    seconds: float = 0.0
    names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def lines(self, key: str) -> list[str]:
        """For a person: how much there is of what `key` names, then one line per kind of finding."""
        count = len(self.sounds)
        return [f"{key}: {count} utterances, {self.seconds:.1f} s"] + [
            f"  {kind}: {len(names)} of {count}, for example {', '.join(names[:3])}"
            for kind, names in self.names.items()
        ]


def check_recordings(utterances: Iterable[Utterance], model: ASRModel) -> Findings:
    """Read every recording, and look at its sound and its transcript. Raises InputError: one cannot be read.

    The model's sample rate is used; its frame rate decides how many output units fit into an utterance.
    """
    findings, names = Findings(), []
    sample_rate = int(model.cfg.sample_rate)
    stride = float(model.cfg.preprocessor.get("window_stride", 0.01))  # seconds
    frame_seconds = stride * getattr(model.encoder, "subsampling_factor", 1)
    for utterance in utterances:
        samples = read_audio(utterance, sample_rate)
        seconds = len(samples) / sample_rate
        is_silent = bool(np.sqrt(np.mean(samples**2)) < 10 ** (SILENT_DBFS / 20))
        kinds = {
            "clipped": np.mean(np.abs(samples) >= CLIPPED_LEVEL) > CLIPPED_SHARE,
            "silent": is_silent,
            "shorter than the manifest says": seconds < utterance.duration - MISSING_SECONDS,
            "without a transcript": not utterance.text.strip(),
            "transcript longer than its frames allow": ceil(seconds / frame_seconds) < _needed(utterance.text, model),
        }
        for kind in (kind for kind, is_found in kinds.items() if is_found):
            findings.names[kind].append(utterance.audio.name)
        findings.sounds.append(None if is_silent else sha256(samples.tobytes()).hexdigest())
        findings.seconds += seconds
        names.append(utterance.audio.name)
    for group in equal_ones(findings.sounds):
        findings.names["the same recording as another"] += [names[i] for i in group]
    return findings


def equal_ones(keys: Sequence[Hashable | None]) -> list[list[int]]:
    """Groups of positions, two or more, that have the same key; None is equal to nothing."""
    positions = defaultdict(list)
    for position, key in enumerate(keys):
        positions[key].append(position)
    return [group for key, group in positions.items() if key is not None and len(group) > 1]


def _needed(text: str, model: ASRModel) -> int:
    """Frames CTC needs: one per unit, and a blank between equal neighbours (Graves et al. 2006)."""
    units = model.tokenizer.text_to_ids(text) if hasattr(model, "tokenizer") else normalised(text, model)
    return len(units) + sum(a == b for a, b in pairwise(units))
