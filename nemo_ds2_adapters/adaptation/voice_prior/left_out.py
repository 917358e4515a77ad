"""What becomes of people who are left out of a population: by what its prior has a recipe and a record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from nemo_ds2_adapters.adaptation.engine import Engine
from nemo_ds2_adapters.adaptation.member import Member
from nemo_ds2_adapters.adaptation.settings import PriorSettings
from nemo_ds2_adapters.adaptation.voice_prior.prior import Experience, Step, VoicePrior
from nemo_ds2_adapters.adapters.adapter import Adapter, towards
from nemo_ds2_adapters.data.speakers import Speaker
from nemo_ds2_adapters.evaluation.errors import Score

TEST_EVERY = 3  # utterances of a person, one is for scoring


@dataclass(frozen=True)
class Tried:
    """One left-out person with so many utterances: scores by what was done."""

    part: int
    amount: int  # number of, in the settings; one more: all
    seconds: float
    own_base: Score  # of what the person was adapted on
    by_base: Score  # of the rest
    own_prior: Score  # with the population's adapter
    by_prior: Score
    scores: dict[tuple[int, float], Score]  # of the rest, by epochs and share
    distances: dict[str, float]  # mean squares, of the adapter trained longest

    def errors(self, epochs: int, share: float) -> int:
        return (self.scores[epochs, share] if epochs else self.by_prior).word_errors

    def experience(self, number: int, step: Step) -> Experience:
        own, other = self.own_base, self.by_base
        return Experience(
            number,
            self.seconds,
            own.words,
            own.word_errors,
            self.own_prior.word_errors,
            other.words,
            other.word_errors,
            self.by_prior.word_errors,
            self.errors(step.epochs, step.share),
        )


def try_people(
    engine: Engine,
    population: Adapter,
    number: int,
    part: Sequence[range],
    base: Mapping[int, Score],
    settings: PriorSettings,
) -> list[Tried]:
    """Adapt the people of a part from the population's adapter, with more and less of their speech."""
    members: list[Member] = []
    splits: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
    for one in part:
        test = tuple(one[TEST_EVERY - 1 :: TEST_EVERY])
        train = tuple(i for i in one if i not in test)
        for amount, count in enumerate((*settings.amounts, len(train))):
            if count < len(train) or amount == len(settings.amounts):
                splits.append((amount, train[:count], test))
                members.append(engine.member(population, train[:count], test, settings.person))
    everything = [i for one in part for i in one]
    own = dict(zip(everything, engine.score(everything, population)))
    scores: list[dict[tuple[int, float], Score]] = [{} for _ in members]
    for before, epochs in pairwise((0, *settings.person_epochs)):
        for _ in range(epochs - before):
            engine.train_epoch(members)
        for share in settings.shares:
            moved = [towards(population, member.adapter(), share) for member in members]
            scored = [engine.member(adapter, m.train, m.held_out, m.settings) for adapter, m in zip(moved, members)]
            for found, all_scores in zip(scores, engine.scores(scored)):
                found[epochs, share] = sum(all_scores, Score())

    def total(known: Mapping[int, Score], indices: Sequence[int]) -> Score:
        return sum((known[i] for i in indices), Score())

    return [
        Tried(
            number,
            amount,
            sum(engine.data.durations(train)),
            total(base, train),
            total(base, test),
            total(own, train),
            total(own, test),
            scores[i],
            _mean_squares(members[i].adapter(), population),
        )
        for i, (amount, train, test) in enumerate(splits)
    ]


def _step(tried: Sequence[Tried], settings: PriorSettings) -> Step:
    """What made the fewest errors; of equals, the shortest way from the population's adapter."""
    ways = [(0, 1.0), *((epochs, share) for epochs in settings.person_epochs for share in settings.shares)]
    epochs, share = min(ways, key=lambda way: (sum(one.errors(*way) for one in tried), way[0] * way[1]))
    return Step(sum(one.seconds for one in tried) / len(tried), epochs, share)


def _mean_squares(adapter: Adapter, population: Adapter) -> dict[str, float]:
    return {
        f"{point}.{key}": float((value - population.weights[point][key]).square().mean())
        for point, state in adapter.weights.items()
        for key, value in state.items()
        if value.is_floating_point()
    }


def _spread(tried: Sequence[Tried]) -> dict[str, float]:
    longest = max(one.amount for one in tried)
    people = [one.distances for one in tried if one.amount == longest]
    means = {key: torch.tensor([one[key] for one in people], dtype=torch.float64).mean() for key in people[0]}
    return {key: float(mean.sqrt()) for key, mean in means.items()}


def measured(
    adapter: Adapter, tried: Sequence[Tried], people: Sequence[Speaker], settings: PriorSettings
) -> VoicePrior:
    """A prior of the people, with the recipe and the record that these trials of them make."""
    recipe, record = [], []
    for number, amount in enumerate(sorted({one.amount for one in tried})):
        group = [one for one in tried if one.amount == amount]
        recipe.append(_step(group, settings))
        for one in group:
            # By the recipe of the other parts: what was chosen by a person's own gain would promise too much.
            others = [other for other in group if other.part != one.part]
            record.append(one.experience(number, _step(others or group, settings)))
    return VoicePrior(
        adapter=adapter,
        lr=settings.person_lr,
        batch_size=settings.person_batch_size,
        recipe=tuple(recipe),
        record=tuple(record),
        spread=_spread(tried),
        speakers=len(people),
        seconds=sum(person.seconds for person in people),
    )
