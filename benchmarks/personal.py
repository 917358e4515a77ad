"""What people gain by a voice prior and by adapters of their own, beside other ways, on recordings nothing has heard.

python benchmarks/personal.py --base base.nemo --prior prior.pt --train train.json --test test.json --output folder

Neither base nor prior may know the people; with `--population manifest` in place of `--prior`, the prior is learnt
from its speakers first, and written into the folder. For each number of seconds that a person gives (`--seconds`),
whoever has so many gets an adapter as adapt_speakers.py makes it; base, population's adapter and what was kept are
scored on the person's test recordings. With `--fine-tune`, all weights of the base are trained for each person, with
the same speech, and scored on another person as well; with `--linear`, NeMo's LinearAdapter at the defaults of NeMo's
own script; with `--alone`, adapters that know no prior. A table, personal.json and personal.png; intervals are over
people (percentile bootstrap).
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from nemo.collections.asr.models import EncDecCTCModel
from personal_ways import Person, by_adapters, by_fine_tuning, by_linear_adapters, read_people, scored
from rich.console import Console
from scipy import stats

from nemo_ds2_adapters.adaptation.settings import PriorSettings
from nemo_ds2_adapters.adaptation.voice_prior.fit_prior import fit_prior
from nemo_ds2_adapters.adaptation.voice_prior.prior import VoicePrior, read_prior, save_prior
from nemo_ds2_adapters.cli.output import quiet
from nemo_ds2_adapters.errors import NemoDs2Error
from nemo_ds2_adapters.evaluation.errors import Score
from nemo_ds2_adapters.evaluation.report import percent, table, write_json
from nemo_ds2_adapters.formats.nemo_archive import restore_model

LEAST_SHARE = 0.7  # of the seconds that were asked for; who has fewer is left out
LOST = 0.01  # word errors per word, more than this is harm
BASE, PRIOR, PERSONAL, ALONE = "base", "no speech: prior", "personal adapter", "without a prior"
LINEAR_WAY, FULL, FORGOT = "LinearAdapter", "all weights", "these, for others"
COLOURS = {PERSONAL: "#2a7f62", ALONE: "#c78a2c", LINEAR_WAY: "#7a68a6", FULL: "#356abc"}


@dataclass(frozen=True)
class Row:
    """What a way of personalising did for people with so much speech."""

    way: str
    seconds: float  # of speech, their mean
    base: list[Score]  # of each person
    scores: list[Score]
    note: str = ""

    @property
    def wer(self) -> float:
        """Of all their words, a fraction."""
        return sum(self.scores, Score()).wer or 0.0

    @property
    def base_wer(self) -> float:
        """The same with the base."""
        return sum(self.base, Score()).wer or 0.0

    @property
    def cer(self) -> float:
        """Character error rate, a fraction."""
        return sum(self.scores, Score()).cer or 0.0

    @property
    def worse(self) -> int:
        """People with more errors than with the base."""
        return sum(b.word_errors < a.word_errors for b, a in zip(self.base, self.scores))

    @property
    def harmed(self) -> int:
        """Of these, who lost more than one word in a hundred."""
        return sum(a.word_errors - b.word_errors > LOST * b.words for b, a in zip(self.base, self.scores))

    def interval(self, statistic: Callable[..., np.ndarray]) -> tuple[float, float]:
        """Of a statistic of word errors with the base, word errors and words, over people."""
        columns = [[one.word_errors for one in self.base], [one.word_errors for one in self.scores]]
        columns.append([one.words for one in self.scores])
        if len(self.scores) < 2:
            return math.nan, math.nan
        data = tuple(np.array(column, dtype=float) for column in columns)
        found = stats.bootstrap(data, statistic, paired=True, vectorized=True, method="percentile", rng=0)
        return float(found.confidence_interval.low), float(found.confidence_interval.high)


def fewer(base: np.ndarray, errors: np.ndarray, words: np.ndarray, axis: int = -1) -> np.ndarray:
    """Share of the base's errors that is gone."""
    return 1 - errors.sum(axis=axis) / base.sum(axis=axis)


def rate(base: np.ndarray, errors: np.ndarray, words: np.ndarray, axis: int = -1) -> np.ndarray:
    """Word error rate."""
    return errors.sum(axis=axis) / words.sum(axis=axis)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Word error rate by seconds of speech, and everybody's with the most speech, beside the base's."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    curve, everybody = figure.subplots(1, 2, width_ratios=(3, 2))
    base, prior, *_ = rows
    curve.axhline(100 * base.wer, color="#9aa5b1", linestyle=":", label=BASE)
    curve.axhspan(*(100 * value for value in base.interval(rate)), color="#9aa5b1", alpha=0.15, linewidth=0)
    for way in dict.fromkeys(row.way for row in rows[2:] if row.way != FORGOT):
        own = [*([prior] if way == PERSONAL else []), *(row for row in rows if row.way == way)]
        seconds, wers = [row.seconds for row in own], [100 * row.wer for row in own]
        errors = 100 * np.abs(np.array([row.interval(rate) for row in own]).T - np.array([row.wer for row in own]))
        curve.errorbar(seconds, wers, yerr=errors, marker="o", capsize=3, label=way, color=COLOURS[way])
    for row in (one for one in rows[1:] if one.way in (PRIOR, PERSONAL)):
        note = f"{row.harmed}/{len(row.base)}"
        place = (row.seconds, 100 * row.interval(rate)[0])
        curve.annotate(
            note, place, (0, -6), textcoords="offset points", color="#c0392b", fontsize=7, va="top", ha="center"
        )
    curve.set(xlabel="seconds of a person's speech", ylabel="word error rate, % (95 % over people)")
    curve.set_ylim(0, None)
    curve.set_title("red: how many lost more than one word in a hundred", fontsize=10)
    curve.set_xscale("symlog", linthresh=5)
    curve.set_xlim(-1, 1.3 * max(row.seconds for row in rows))
    ticks = sorted({round(row.seconds) for row in rows})
    curve.set_xticks(ticks, [str(tick) for tick in ticks])
    curve.minorticks_off()
    curve.legend(frameon=False)
    last = [row for row in rows if row.way == PERSONAL][-1]
    before, after = ([100 * (one.wer or 0.0) for one in scores] for scores in (last.base, last.scores))
    colours = ["#c0392b" if a > b else COLOURS[PERSONAL] for b, a in zip(before, after)]
    everybody.scatter(before, after, color=colours, s=24)
    most = max(*before, *after) * 1.05
    everybody.plot([0, most], [0, most], color="#9aa5b1", linewidth=1)
    everybody.set(xlabel="word error rate of the base, %", ylabel="with the personal adapter, %")
    everybody.set_title(f"{len(before)} people, {last.seconds:.0f} s each; {last.worse} worse (red)", fontsize=10)
    for axes in (curve, everybody):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("base", "train", "test"):
        parser.add_argument(f"--{name}", required=True)
    known = parser.add_mutually_exclusive_group(required=True)
    known.add_argument("--prior", help="of ds2-adapters fit-prior")
    known.add_argument("--population", help="manifest of people to learn one from: 6 epochs, left out in 2 parts")
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[5, 10, 20, 45, 90], help="of each person's speech"
    )
    parser.add_argument("--people", type=int, default=None, help="only the first so many")
    parser.add_argument("--fine-tune", type=float, nargs=2, metavar=("LR", "EPOCHS"), help="all weights of the base")
    parser.add_argument("--alone", action="store_true", help="adapters without the prior, by cross-validation")
    parser.add_argument(
        "--linear", type=int, default=0, metavar="PEOPLE", help="NeMo's LinearAdapter, 1,000 steps, for so many"
    )
    parser.add_argument("--output", type=Path, default=Path("personal"), help="folder")
    options = parser.parse_args()
    quiet("ERROR")
    people = read_people(options.train, options.test)[: options.people]
    if not any(person.seconds() >= LEAST_SHARE * min(options.seconds) for person in people):
        parser.error(f"nobody in --train and --test has {min(options.seconds):g} s of speech in --train")
    options.output.mkdir(parents=True, exist_ok=True)
    model = restore_model(options.base, None)
    prior = read_prior(options.prior) if options.prior else learnt(model, options.population, options.output)
    base = scored(model, [None] * len(people), prior.adapter, people)
    rows = [
        Row(BASE, 0.0, base, base),
        Row(PRIOR, 0.0, base, scored(model, [prior.adapter] * len(people), prior.adapter, people)),
    ]
    few: list[Person] = []
    for seconds in options.seconds:
        have = [i for i, person in enumerate(people) if person.seconds() >= LEAST_SHARE * seconds]
        if not have:
            continue
        some, own_base = [people[i].given(seconds) for i in have], [base[i] for i in have]
        mean = float(np.mean([person.seconds() for person in some]))
        rows.append(Row(PERSONAL, mean, own_base, *by_adapters(model, some, prior.adapter, prior)))
        if options.alone:
            rows.append(Row(ALONE, mean, own_base, *by_adapters(model, some, prior.adapter, None)))
        if options.fine_tune:
            own, others, note = by_fine_tuning(options.base, some, options.fine_tune[0], int(options.fine_tune[1]))
            rows.append(Row(FULL, mean, own_base, own, note))
            rows.append(Row(FORGOT, mean, [*own_base[1:], own_base[0]], others))
        before, few = few, some[: options.linear]
        if few and few != before:  # long utterances: another number of seconds may be the same speech
            mean = float(np.mean([person.seconds() for person in few]))
            rows.append(Row(LINEAR_WAY, mean, own_base[: len(few)], *by_linear_adapters(model, few)))
        write_json([asdict(row) for row in rows], options.output / "personal.json")  # hours may be in it
    show(rows)
    draw(rows, options.output / "personal.png")


def learnt(model: EncDecCTCModel, manifest: str, folder: Path) -> VoicePrior:
    """A prior of a manifest's speakers, written into a folder."""
    prior = fit_prior(model, manifest, settings=PriorSettings(epochs=6, folds=2))
    save_prior(prior, folder / "prior.pt")
    return prior


def show(rows: Sequence[Row]) -> None:
    """The table."""
    headings = ("", "speech", "people", "base", "WER", "CER", "fewer\nerrors", "better /\nworse", "lost\n> 1 %", "")
    cells = []
    for row in rows:
        low, high = row.interval(fewer)
        gone = f"{100 * (1 - row.wer / row.base_wer):.0f} %"
        if math.isfinite(low):  # not of a single person
            gone += f" [{100 * low:.0f}, {100 * high:.0f}]"
        better = sum(b.word_errors > a.word_errors for b, a in zip(row.base, row.scores))
        cells.append(
            (row.way, f"{row.seconds:.0f} s", str(len(row.base)), *map(percent, (row.base_wer, row.wer, row.cer)))
            + ((gone, f"{better} / {row.worse}", str(row.harmed), row.note) if row.way != BASE else ("",) * 4)
        )
    Console(width=130).print(table("Word errors on test recordings", headings, cells))


if __name__ == "__main__":
    try:
        main()
    except NemoDs2Error as error:
        sys.exit(f"error: {error}")
