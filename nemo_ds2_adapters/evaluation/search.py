"""Search for an adapter's settings: what a trial is worth, and the table of all of them."""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

TRIALS = "trials.jsonl"  # in the folder of the search
COLUMNS = ("score", "wer_before", "wer_after", "base_wer_before", "base_wer_after", "epochs", "seconds")


@dataclass(frozen=True)
class Trial:
    """One adapter of the search. Word error rates are fractions."""

    number: int
    overrides: list[str]  # of the command line and the sweeper, `key=value`
    wer_before: float  # on the validation data
    wer_after: float
    base_wer_before: float  # on recordings of the base's own domain
    base_wer_after: float
    epochs: int
    seconds: float
    max_base_loss: float  # absolute

    @property
    def score(self) -> float:
        """Relative gain, times the part of the tolerated loss on the base's own domain that was not used up: 0 to 1.

        NeMo's `OriginalScale x WERR` (examples/asr/asr_adapters/scoring_and_analysis.py; Majumdar et al. 2022, arXiv
        2210.03255, with at most 3 points of absolute WER), but for one thing: there a base domain that gets better
        counts as a loss too.
        """
        gain = max(self.wer_before - self.wer_after, 0.0) / self.wer_before if self.wer_before else 0.0
        loss = max(self.base_wer_after - self.base_wer_before, 0.0)
        return gain * max(1.0 - loss / self.max_base_loss, 0.0)

    def append_to(self, folder: Path) -> None:
        """Write the trial to the search's folder; several processes may do so at a time."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / TRIALS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(self)) + "\n")


def read_trials(folder: Path) -> list[Trial]:
    """The trials of a search, best first."""
    lines = (folder / TRIALS).read_text(encoding="utf-8").splitlines()
    return sorted((Trial(**json.loads(line)) for line in lines), key=lambda trial: (-trial.score, trial.number))


def settings_that_differ(trials: list[Trial]) -> dict[str, list[str]]:
    """What was searched over: values of all trials by key, `-` where one has none."""
    given = [dict(override.lstrip("+").split("=", 1) for override in t.overrides if "=" in override) for t in trials]
    keys = sorted({key for settings in given for key in settings})
    values = {key: [settings.get(key, "-") for settings in given] for key in keys}
    return {key: column for key, column in values.items() if len(set(column)) > 1}


class SearchTable(Callback):
    """At the end of a Hydra multirun: a table of all trials on the screen, and as `trials.csv` in its folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Hydra calls this in the process that was started, whatever launcher ran the trials."""
        folder = Path(config.hydra.sweep.dir)
        if not (folder / TRIALS).is_file():
            return  # the first trial failed, and has said why
        trials = read_trials(folder)
        settings = settings_that_differ(trials)
        names = {key: key.rpartition(".")[2] for key in settings}
        rows = [
            [t.number, *(column[i] for column in settings.values()), *(getattr(t, name) for name in COLUMNS)]
            for i, t in enumerate(trials)
        ]
        with (folder / "trials.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["trial", *settings, *COLUMNS], *rows])
        table = Table("trial", *names.values(), title="best first; WER in %", padding=(0, 0, 0, 1), box=None)
        for heading in ("WER", "base's own WER", "epochs", "score"):
            table.add_column(heading, justify="right")
        for i, t in enumerate(trials):
            table.add_row(
                str(t.number),
                *(_short(column[i]) for column in settings.values()),
                f"{100 * t.wer_before:.1f} -> {100 * t.wer_after:.1f}",
                f"{100 * t.base_wer_before:.1f} -> {100 * t.base_wer_after:.1f}",
                str(t.epochs),
                f"{t.score:.3f}",
            )
        console = Console(width=100)
        console.print(table)
        console.print(f"{folder}/trials.csv", soft_wrap=True)


def _short(value: str) -> str:
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value
