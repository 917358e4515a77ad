"""The voice prior: what is known of a person before they have spoken, learnt from people before them.

MAP adaptation (Gauvain & Lee 1994) with an adapter: its mean is the population's adapter, which a new person's
training starts from; how far it goes, and what is kept of it, is what served people who were left out of it.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from nemo_ds2_adapters.adapters.adapter import Adapter, with_metadata
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.file import write_adapters
from nemo_ds2_adapters.formats.reading import FilePath, read_adapter
from nemo_ds2_adapters.store.store import PRIOR, AdapterStore

KEY = "voice_prior"  # of the population adapter's metadata
MOST = 1e9  # of any number in a prior's file
MOST_EPOCHS = 1000


@dataclass(frozen=True)
class Step:
    """How a person with about so much speech is adapted from the population's adapter.

    Args:
        seconds: of speech, the mean of those in the population who had so much.
        epochs: 0: they stay with the population's adapter.
        share: of the way from the population's adapter to the trained one that is gone, 0 to 1.
    """

    seconds: float
    epochs: int
    share: float


@dataclass(frozen=True)
class Experience:
    """What became of one person who was left out of the population, by the recipe that the others called for.

    Errors are words: on the utterances that the person was adapted on, which neither base nor population's adapter
    knew, and on others, which the person's adapter did not know either.
    """

    step: int  # of the recipe, 0 for the first
    seconds: float  # of speech that the person was adapted on
    own_words: int
    own_base_errors: int
    own_prior_errors: int
    words: int  # of the other utterances
    base_errors: int
    prior_errors: int
    adapted_errors: int


@dataclass(frozen=True)
class VoicePrior:
    """Learnt by `fit_prior`; as a file it is that of the population's adapter, which any model can load.

    Args:
        adapter: the population's; its info names the base.
        lr: learning rate of a person's training, constant.
        batch_size: utterances, of the same.
        recipe: by seconds of speech, increasing.
        record: of everybody in the population, once for each step of the recipe.
        spread: root mean square distance of people's own adapters from the population's, by point and weight.
        speakers: in the population.
        seconds: of their speech.
    """

    adapter: Adapter
    lr: float
    batch_size: int
    recipe: tuple[Step, ...]
    record: tuple[Experience, ...]
    spread: Mapping[str, float]
    speakers: int
    seconds: float

    def step(self, seconds: float) -> Step:
        """What to do with so much speech: the step of the recipe that is nearest on a scale of ratios."""
        return min(self.recipe, key=lambda step: abs(math.log(step.seconds / seconds)))

    @property
    def helps_unheard(self) -> bool:
        """Whether those left out made fewer errors with the population's adapter, before they gave any speech."""
        return sum(one.prior_errors for one in self.record) < sum(one.base_errors for one in self.record)

    def experiences(self, step: Step) -> list[Experience]:
        """Of the people who were adapted by a step of the recipe."""
        return [one for one in self.record if one.step == self.recipe.index(step)]

    def as_adapter(self) -> Adapter:
        """The population's adapter, with everything else in its metadata."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("adapter", "recipe", "record")}
        values["recipe"] = [asdict(step) for step in self.recipe]
        values["record"] = [list(asdict(one).values()) for one in self.record]
        return with_metadata(self.adapter, {**self.adapter.metadata, KEY: {**values, "spread": dict(self.spread)}})

    @classmethod
    def of(cls, adapter: Adapter, label: str) -> Self:
        """The prior in an adapter's metadata.

        Raises:
            AdapterFileError: there is none, or it is damaged; begins with `label`.
        """
        values: Any = adapter.metadata.get(KEY)
        if not isinstance(values, Mapping):
            raise AdapterFileError(
                f"{label}: holds an adapter, but no voice prior: make one with ds2-adapters fit-prior"
            )
        try:
            recipe = tuple(Step(**step) for step in values["recipe"])
            record = tuple(Experience(*one) for one in values["record"])
            prior = cls(adapter, **{**values, "recipe": recipe, "record": record})
        except (TypeError, KeyError) as error:
            raise AdapterFileError(f"{label}: its voice prior is damaged ({error})") from error
        prior._check(label)
        return prior

    def _check(self, label: str) -> None:
        are_numbers = all(map(_has_numbers, (self, *self.recipe, *self.record)))
        spread = self.spread.values() if isinstance(self.spread, Mapping) else [math.nan]
        if not (
            are_numbers
            and self.recipe
            and self.batch_size
            and all(type(value) is float and math.isfinite(value) for value in spread)
            and all(step.seconds > 0 and step.share <= 1 and step.epochs <= MOST_EPOCHS for step in self.recipe)
            and all(one.seconds > 0 and one.step < len(self.recipe) for one in self.record)
        ):
            raise AdapterFileError(f"{label}: its voice prior is damaged (numbers that cannot be)")


def _has_numbers(value: Any) -> bool:
    """Whether the numbers of a dataclass are of the kinds it says, at least 0, and not beyond reason."""
    numbers = [(field.type, getattr(value, field.name)) for field in fields(value) if field.type in (int, float)]
    return all(type(number) in (int, kind) and 0 <= number <= MOST for kind, number in numbers)


def save_prior(prior: VoicePrior, path: FilePath) -> None:
    """Write a prior, atomically.

    Raises:
        AdapterFileError: it cannot be written; an existing file is untouched.
    """
    write_adapters([prior.as_adapter()], path)


def read_prior(path: FilePath) -> VoicePrior:
    """Read a prior, of a file or of a store that keeps one; nothing of it is executed.

    Raises:
        AdapterFileError: the file is damaged, or holds no prior.
        UnknownUserError: the store has none.
    """
    if "://" in str(path) or Path(path).is_dir():
        return VoicePrior.of(AdapterStore(path, create=False).get(PRIOR), str(path))
    return VoicePrior.of(read_adapter(path), str(path))


def chosen_prior(text: Any) -> VoicePrior | None:
    """What `model.adapter.prior` names: a file; nothing, for null and `off`, which YAML takes for false.

    Raises:
        AdapterFileError: the file is damaged, or holds no prior.
        InputError: it is no text.
    """
    if text is None or text is False or text == "off":
        return None
    if not isinstance(text, str) or not text:
        raise InputError(f"model.adapter.prior={text}: give the path of a voice prior, or off")
    return read_prior(text)


def weights_hash(adapter: Adapter) -> str:
    """SHA-256 over the weights: by it an adapter names the prior it started from."""
    digest = hashlib.sha256()
    for point, state in adapter.weights.items():
        for name, value in state.items():
            digest.update(f"{point} {name} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.contiguous().reshape(-1).numpy().tobytes())
    return digest.hexdigest()


def check_fits(prior: VoicePrior, fingerprint: str) -> None:
    """Refuse a prior of another base.

    Raises:
        InputError: says so.
    """
    if prior.adapter.info is None or prior.adapter.info.fingerprint != fingerprint:
        raise InputError("the voice prior was made for another base model: fit one on this base")


def describe(prior: VoicePrior) -> Sequence[str]:
    """What was learnt, in lines for a person."""
    minutes = prior.seconds / 60
    if not prior.record:
        return [
            f"voice prior of {prior.speakers} people's adapters; no speech was at hand to tell what it brings: who "
            "uses it is cross-validated, from the better one of base and this adapter"
        ]
    lines = [f"voice prior of {prior.speakers} people, {minutes:.0f} minutes of speech; people left out of it:"]
    for step in prior.recipe:
        people = prior.experiences(step)
        base, before, after = (
            sum(getattr(one, name) for one in people) for name in ("base_errors", "prior_errors", "adapted_errors")
        )
        worse = sum(one.adapted_errors - one.base_errors > 0.01 * one.words for one in people)
        lines.append(
            f"  {step.seconds:5.0f} s of speech: {_change(before, base)} without any, {_change(after, base)} after "
            f"{step.epochs} epochs; {worse} of {len(people)} lost more than one word in a hundred"
        )
    if not prior.helps_unheard:
        lines.append("  without speech they gained nothing: keep the base for who has not spoken (no adapter_default)")
    return lines


def _change(errors: int, base: int) -> str:
    return f"{100 * (errors / base - 1):+.0f} % errors" if base else "no errors"
