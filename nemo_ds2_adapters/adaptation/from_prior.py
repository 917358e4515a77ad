"""Adapting people from a voice prior: by its recipe, without cross-validation."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from nemo_ds2_adapters.adaptation.choice import choose, is_unlike
from nemo_ds2_adapters.adaptation.engine import Engine
from nemo_ds2_adapters.adaptation.member import Member
from nemo_ds2_adapters.adaptation.outcome import NOT_FINITE, Outcome
from nemo_ds2_adapters.adaptation.prior import Step, VoicePrior
from nemo_ds2_adapters.adaptation.settings import person_settings
from nemo_ds2_adapters.adapters.adapter import Adapter, is_finite, towards, zero
from nemo_ds2_adapters.evaluation.errors import Score


def adapt_from_prior(
    engine: Engine, people: Sequence[Sequence[int]], population: Adapter, prior: VoicePrior, seed: int
) -> tuple[dict[int, Outcome], dict[int, Adapter]]:
    """What is best for each person by what became of people like them.

    Args:
        engine: has their utterances.
        people: positions of each one's utterances.
        population: the prior's adapter, in the model's precision.
        prior: with its recipe and record.
        seed: of the order of utterances.

    Returns:
        by number, what came of each person; and for who is unlike everybody in the population, what their training,
        to be decided by their own recordings alone, is to start from: the better one of base and population's adapter.
    """
    found: dict[int, Outcome] = {}
    unlike: dict[int, Adapter] = {}
    members: dict[int, tuple[Member, Step]] = {}
    for number, positions in enumerate(people):
        seconds = sum(engine.data.durations(positions))
        step = prior.step(seconds)
        base = sum(engine.score(positions), Score())
        own = sum(engine.score(positions, population), Score())
        if is_unlike(prior, step, base, own):
            unlike[number] = population if own.word_errors <= base.word_errors else zero(population)
            continue
        choice = choose(prior, step, seconds, base, own)
        if choice.kind == "adapted":
            settings = person_settings(prior.lr, prior.batch_size, step.epochs, seed)
            members[number] = engine.member(population, positions, [], settings), step
        before = base.wer or 0.0
        after = before * (1 - choice.gain)
        epochs = step.epochs if choice.kind == "adapted" else 0
        kept = population if choice.kind == "prior" else zero(population)
        found[number] = Outcome(kept, choice.kind, choice.reason, before, after, True, epochs)
    _train(engine, [(member, step.epochs) for member, step in members.values()])
    for number, (member, step) in members.items():
        trained = towards(population, member.adapter(), step.share)
        found[number] = replace(found[number], adapter=trained) if is_finite(trained) else Outcome(problem=NOT_FINITE)
    return found, unlike


def _train(engine: Engine, members: Sequence[tuple[Member, int]]) -> None:
    """Each for its number of epochs."""
    for before, epochs in pairwise(sorted({0, *(epochs for _, epochs in members)})):
        for _ in range(epochs - before):
            engine.train_epoch([member for member, wanted in members if wanted >= epochs])
