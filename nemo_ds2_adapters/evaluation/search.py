"""Search for an adapter's settings: what a trial is worth."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

TRIALS = "trials.jsonl"  # in the folder of the search
TABLE = "trials.csv"


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
