"""What people gain by a voice prior, and by an adapter of their own from it, on recordings that nothing has heard.

python benchmarks/personal.py --base base.nemo --prior prior.pt --train people_train.json --test people_test.json

Neither base nor prior may know the people. For each number of utterances that a person gives, everybody is adapted as
adapt_speakers.py does it, and base, population's adapter and what was kept are scored on the person's test recordings.
Intervals are over people (percentile bootstrap).
"""

import argparse
import time

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from nemo_ds2_adapters.adaptation.group import adapt_group, training_engine
from nemo_ds2_adapters.adaptation.prior import read_prior
from nemo_ds2_adapters.adaptation.settings import Settings
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.cli.output import quiet
from nemo_ds2_adapters.data.speakers import Speaker, read_speakers
from nemo_ds2_adapters.evaluation.errors import Score
from nemo_ds2_adapters.formats.nemo_archive import restore_model

AT_ONCE = 16  # people


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("base", "prior", "train", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--amounts", type=int, nargs="+", default=[1, 3, 10], help="utterances of each person")
    parser.add_argument("--people", type=int, default=None, help="only the first so many")
    options = parser.parse_args()
    quiet("ERROR")
    model, prior = restore_model(options.base, None), read_prior(options.prior)
    train, test = (
        {speaker.user_id: speaker for speaker in read_speakers(path, path, "speaker")[0]}
        for path in (options.train, options.test)
    )
    people = [name for name in train if name in test][: options.people]
    table = Table(
        "speech", "WER base", "no speech", "kept", "fewer errors", "better / worse", "lost > 1 %", "kinds", "s"
    )
    base = _scores(model, [None] * len(people), prior.adapter, [test[name] for name in people])
    alone = _scores(model, [prior.adapter] * len(people), prior.adapter, [test[name] for name in people])
    for amount in options.amounts:
        started = time.process_time()
        kept: list[Adapter | None] = []
        kinds: list[str] = []
        groups = [train[name].utterances[:amount] for name in people]
        for first in range(0, len(groups), AT_ONCE):
            some = groups[first : first + AT_ONCE]
            settings = Settings({"name": "adamw", "lr": 0.002})
            outcomes = dict(adapt_group(model, some, settings, prior.adapter, prior=prior))
            kept += [outcomes[i].adapter for i in range(len(some))]
            kinds += [outcomes[i].kind if outcomes[i].problem is None else "problem" for i in range(len(some))]
        seconds = (time.process_time() - started) / len(people)
        adapted = _scores(model, kept, prior.adapter, [test[name] for name in people])
        speech = np.mean([sum(u.duration for u in group) for group in groups])
        table.add_row(
            f"{speech:.0f} s",
            *(f"{100 * sum(scores, Score()).wer:.1f} %" for scores in (base, alone, adapted)),
            _gain(base, adapted),
            f"{_count(base, adapted, lambda b, a: a < b)} / {_count(base, adapted, lambda b, a: a > b)}",
            str(_count(base, adapted, lambda b, a: a > b + 0.01)),
            ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))),
            f"{seconds:.1f}",
        )
    Console(width=110).print(table)
    print(f"{len(people)} people; no speech: {_gain(base, alone)}, {_count(base, alone, lambda b, a: a > b)} worse")


def _scores(model, adapters: list[Adapter | None], like: Adapter, speakers: list[Speaker]) -> list[Score]:
    """Of each person's utterances, with an adapter each."""
    groups = [speaker.utterances for speaker in speakers]
    with training_engine(model, groups, like) as (engine, positions, _):
        return [sum(engine.score(one, adapter), Score()) for adapter, one in zip(adapters, positions)]


def _count(base: list[Score], adapted: list[Score], test) -> int:
    return sum(test(b.wer, a.wer) for b, a in zip(base, adapted))


def _gain(base: list[Score], adapted: list[Score]) -> str:
    b, a = (np.array([score.word_errors for score in scores], dtype=float) for scores in (base, adapted))

    def relative(b: np.ndarray, a: np.ndarray, axis: int = -1) -> np.ndarray:
        return 1 - a.sum(axis=axis) / b.sum(axis=axis)

    interval = stats.bootstrap((b, a), relative, paired=True, vectorized=True, method="percentile", rng=0)
    low, high = interval.confidence_interval
    return f"{100 * relative(b, a):.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


if __name__ == "__main__":
    main()
