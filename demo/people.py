"""Synthetic people whom the base has not heard: a population to learn a voice prior from, others to show it on.

python -m demo.people population OUT_DIR
python -m demo.people others OUT_DIR --people 24

The two groups share no voice variant with each other, with the base or with the demo's two users, and the population
has not the accents of these. Everybody has a pitch, a pace and a channel of their own.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from demo.corpus import BASE_ACCENTS, Speaker, Utterance, Variety, write_corpus
from demo.sentences import sentence_sets

POPULATION_ACCENTS = (*BASE_ACCENTS, "en-gb-x-gbcwmd")
POPULATION_VARIANTS = (
    *("Andrea", "Mike", "Nguyen", "Reed", "RicishayMax3", "Tweaky", "anika", "announcer", "ed", "iven3", "john"),
    *("marcelo", "miguel", "mike2", "pedro", "quincy", "travis", "AnxiousAndy", "Marco", "RicishayMax", "Storm"),
    *("anikaRobot", "benjamin", "caleb", "gustave", "iven", "iven2", "m4", "m7", "pablo", "paul", "steph2", "steph3"),
    "zac",
)
OTHER_ACCENTS = (*POPULATION_ACCENTS, "en-029", "en-gb-scotland")
OTHER_VARIANTS = (
    *("Denis", "Diogo", "Gene2", "Hugo", "Jacky", "Mr serious", "RicishayMax2", "antonio", "david", "edward2", "fast"),
    *("grandma", "iven4", "kaukovalta", "m8", "norbert", "rob", "sandro"),
)
VARIETY = Variety(
    pitch=(25, 75),
    rate=(110, 180),
    low_hz=(50, 320),
    high_hz=(3200, 7500),
    resonance_hz=(500, 3500),
    resonance_db=(-2, 9),
    snr_db=(13, 35),
    reverberation_s=(0, 0.4),
)


def write_population(out_dir: Path, people: int = 60, sentences: int = 15, seed: int = 1) -> None:
    """Write ``out_dir/train.json``: so many sentences of each person."""
    rng = random.Random(seed)
    speakers = [_person(f"population_{i:03d}", POPULATION_ACCENTS, POPULATION_VARIANTS, rng) for i in range(people)]
    write_corpus(out_dir, {"train": [u for one in speakers for u in _utterances(one, sentences, 0)["train"]]}, seed)


def write_others(out_dir: Path, people: int = 24, train: int = 10, test: int = 20, seed: int = 0) -> None:
    """Write ``out_dir/{train,test}.json``: so many sentences of each person; the two share none of a person's."""
    rng = random.Random(seed)
    speakers = [_person(f"other_{i:03d}", OTHER_ACCENTS, OTHER_VARIANTS, rng) for i in range(people)]
    sets = [_utterances(one, train, test) for one in speakers]
    write_corpus(out_dir, {split: [u for one in sets for u in one[split]] for split in ("train", "test")}, seed)


def _utterances(speaker: Speaker, train: int, test: int) -> dict[str, list[Utterance]]:
    sets = asdict(sentence_sets(speaker.name, train, 0, test))
    return {split: [Utterance(speaker, text) for text in texts] for split, texts in sets.items()}


def _person(name: str, accents: Sequence[str], variants: Sequence[str], rng: random.Random) -> Speaker:
    return VARIETY.draw(name, f"{rng.choice(accents)}+{rng.choice(variants)}", rng)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make synthetic people whom the demo's base has not heard.")
    parser.add_argument("group", choices=("population", "others"))
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--people", type=int, default=None)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(arguments)
    write = write_population if options.group == "population" else write_others
    given = {name: value for name in ("people", "seed") if (value := getattr(options, name)) is not None}
    write(options.out_dir, **given)


if __name__ == "__main__":
    main()
