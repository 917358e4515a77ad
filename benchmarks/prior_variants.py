"""Other ways from a population to a person's adapter, beside the one that the voice prior takes.

python benchmarks/prior_variants.py --base base.nemo --population train.json --train train.json --test test.json

For each adapter of `SHAPES`, the population's adapter is trained as `fit-prior` trains it, and the people's from it,
with their first sentences (`AMOUNTS`) and epochs (`EPOCHS`). With the shipped adapter also: a penalty on the distance
from the population's adapter (MAP with one variance), what was learnt shrunk weight by weight by the spread of the
population's own adapters around it (MAP with the measured variances), and what was learnt projected on the directions
of the population people's gradients (a person as 16 numbers; the neural form of basis fMLLR, Povey & Yao 2012).
Neither base nor population may know the people. Printed are the word errors on the people's test recordings.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch
from nemo.collections.asr.models import EncDecCTCModel
from personal import read_people, scored
from rich.console import Console
from torch import Tensor

from nemo_ds2_adapters.adaptation.group import training_engine
from nemo_ds2_adapters.adaptation.settings import PriorSettings, Settings
from nemo_ds2_adapters.adaptation.start import new_adapter
from nemo_ds2_adapters.adaptation.voice_prior.fit_prior import DEFAULT_CONFIG, usable
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.cli.output import quiet
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.data.speakers import read_speakers
from nemo_ds2_adapters.evaluation.errors import Score
from nemo_ds2_adapters.evaluation.report import percent, table
from nemo_ds2_adapters.formats.nemo_archive import restore_model

SHAPES = {
    "all, 64 (shipped)": {},
    "all, 16": {"hidden_dims": [16]},
    "all, 256": {"hidden_dims": [256]},
    "first, 64": {"layers": "first"},
    "last, 64": {"layers": "last"},
}
AMOUNTS, EPOCHS = (1, 3, 10), (2, 4)  # sentences
PENALTIES = (0.03, 0.3, 3.0)
DIRECTIONS = 16


def flat(adapter: Adapter) -> Tensor:
    """All of its weights, `[N]`."""
    return torch.cat([value.flatten() for state in adapter.weights.values() for value in state.values()])


def with_weights(adapter: Adapter, values: Tensor) -> Adapter:
    """The adapter with other weights, `[N]`."""
    parts = iter(values.split([value.numel() for state in adapter.weights.values() for value in state.values()]))
    weights = {
        point: {key: next(parts).view_as(value) for key, value in state.items()}
        for point, state in adapter.weights.items()
    }
    return replace(adapter, weights=weights)


def trained(
    model: EncDecCTCModel, groups: Sequence[Sequence[Utterance]], start: Adapter, settings: Settings
) -> list[Adapter]:
    """An adapter for each group."""
    with training_engine(model, groups, start) as (engine, positions, own):
        members = [engine.member(own, one, [], settings) for one in positions]
        for _ in range(settings.max_epochs):
            engine.train_epoch(members)
        return [member.adapter() for member in members]


def gradients(model: EncDecCTCModel, groups: Sequence[Sequence[Utterance]], start: Adapter) -> Tensor:
    """Of each group's loss at the start, `[groups, N]`: one step of plain gradient descent on all of its speech."""
    most = max(len(group) for group in groups)
    one_step = Settings({"name": "sgd", "lr": 1.0, "weight_decay": 0.0}, most, 1, gradient_clip_val=0.0)
    return torch.stack([flat(start) - flat(one) for one in trained(model, groups, start, one_step)])


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "population", "train", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--speakers", type=int, default=None, help="of the population, only the first so many")
    parser.add_argument("--epochs", type=int, default=10, help="of the population's adapter")
    parser.add_argument("--people", type=int, default=None, help="only the first so many")
    options = parser.parse_args()
    quiet("ERROR")
    model, people = restore_model(options.base, None), read_people(options.train, options.test)[: options.people]
    speakers, _ = read_speakers(options.population, "--population", "speaker")
    groups = [one.utterances for one in usable(speakers)[: options.speakers]]
    settings = PriorSettings(epochs=options.epochs)
    rows: list[tuple[str, ...]] = []
    base: list[Score] = []

    def report(way: str, amount: object, epochs: object, adapters: Sequence[Adapter]) -> None:
        after = scored(model, adapters, adapters[0], people)
        better = sum(a.word_errors < b.word_errors for a, b in zip(after, base))
        worse = sum(a.word_errors > b.word_errors for a, b in zip(after, base))
        total = sum(after, Score())
        rows.append((way, str(amount), str(epochs), str(total.word_errors), percent(total.wer), f"{better} / {worse}"))
        print(*rows[-1], sep="\t", flush=True)

    def first(amount: int) -> list[tuple[Utterance, ...]]:
        return [person.train[:amount] for person in people]

    for shape, changed in SHAPES.items():
        start = new_adapter(model, "population", {**DEFAULT_CONFIG, **changed}, 0)
        (population,) = trained(model, [[one for group in groups for one in group]], start, settings.population)
        if not base:
            base = scored(model, [None] * len(people), population, people)
            everything = sum(base, Score())
            rows.append(("base", "", "", str(everything.word_errors), percent(everything.wer), ""))
        report(f"{shape}, {population.parameters:,} weights", 0, "", [population] * len(people))
        for amount in AMOUNTS:
            for epochs in EPOCHS:
                own = replace(settings.person, max_epochs=epochs)
                report(shape, amount, epochs, trained(model, first(amount), population, own))
        if changed:
            continue
        own = replace(settings.person, max_epochs=4)
        for penalty in PENALTIES:
            for amount in AMOUNTS:
                penalised = replace(own, l2_weight=penalty)
                report(f"penalty {penalty:g}", amount, 4, trained(model, first(amount), population, penalised))
        centre = flat(population)
        spread = torch.stack([flat(one) - centre for one in trained(model, groups, population, own)]).square().mean(0)
        _, _, directions = torch.linalg.svd(gradients(model, groups, population), full_matrices=False)
        basis = directions[:DIRECTIONS]
        for amount in AMOUNTS:
            steps = [flat(one) - centre for one in trained(model, first(amount), population, own)]
            shares = spread / (spread + spread.mean())
            report("shrunk by spread", amount, 4, [with_weights(population, centre + shares * step) for step in steps])
            found = [with_weights(population, centre + basis.T @ (basis @ step)) for step in steps]
            report(f"{DIRECTIONS} directions", amount, 4, found)
    headings = ("way", "sentences", "epochs", "errors", "WER", "better /\nworse")
    title = f"{len(people)} people, population of {len(groups)}, {sum(map(len, groups))} recordings"
    Console(width=100).print(table(title, headings, rows))


if __name__ == "__main__":
    main()
