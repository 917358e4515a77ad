"""What a person reads aloud: sentences that together have as many different sounds as can be."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.data.transcripts import check_vocabulary
from nemo_ds2_adapters.errors import InputError

SHIPPED = Path(__file__).with_name("prompts.tsv")  # of the kind that the demo's base knows; sounds by espeak-ng, en-us
LEAST_LENGTH = 6  # sounds that are added to every sentence's length: very short ones would win otherwise


@dataclass(frozen=True)
class Prompt:
    """A sentence, and its sounds in their order; its letters where nobody knows them."""

    text: str
    sounds: tuple[str, ...]

    @property
    def units(self) -> set[object]:
        """Sounds, and pairs of neighbours."""
        return {*self.sounds, *pairwise(self.sounds)}


def read_prompts(path: Path, model: EncDecCTCModel) -> list[Prompt]:
    """The sentences of a file that a model can write: one per line, perhaps a tab, and its sounds with blanks between.

    Raises InputError: the file cannot be read.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"--prompts {path}: cannot be read ({error})") from error
    parts = [line.partition("\t") for line in lines if line.strip()]
    return [Prompt(text, tuple(sounds.split() or text)) for text, _, sounds in parts if _can_write(model, text)]


def choose_prompts(
    prompts: Sequence[Prompt], count: int, tests: int, seed: int, skip: int = 0
) -> tuple[list[str], list[str]]:
    """Some to train with, each of which brings the most sounds that were seldom yet; and others, drawn by chance.

    The first `skip`, read before, are left out; after the last one it begins anew.
    """
    left = list(prompts)
    random.Random(seed).shuffle(left)
    held, left = left[:tests], left[tests:]
    chosen: list[str] = []
    seen: Counter[object] = Counter()
    skip %= max(1, len(left))
    while left and len(chosen) < skip + count:
        best = max(
            left, key=lambda one: sum((1 + seen[u]) ** -2 for u in one.units) / (LEAST_LENGTH + len(one.sounds))
        )
        left.remove(best)
        seen.update(best.units)
        chosen.append(best.text)
    return (chosen[skip:] + chosen[:skip])[:count], [one.text for one in held]


def _can_write(model: EncDecCTCModel, text: str) -> bool:
    try:
        check_vocabulary([Utterance(Path("prompt"), text)], "prompts", model)
    except InputError:
        return False
    return True
