"""The table of a search's trials, when Hydra has run all of them."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from nemo_ds2_adapters.cli.output import say
from nemo_ds2_adapters.evaluation.report import WIDTH, percent, table, write_csv
from nemo_ds2_adapters.evaluation.search import TABLE, TRIALS, read_trials, settings_that_differ

COLUMNS = ("score", "wer_before", "wer_after", "base_wer_before", "base_wer_after", "epochs", "seconds")


class SearchTable(Callback):
    """At the end of a Hydra multirun: a table of all trials on the screen, and as `trials.csv` in its folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Hydra calls this in the process that was started, whatever launcher ran the trials."""
        folder = Path(config.hydra.sweep.dir)
        if not (folder / TRIALS).is_file():
            return  # the first trial failed, and has said why
        trials = read_trials(folder)
        settings = settings_that_differ(trials)
        rows = [
            {
                "trial": t.number,
                **{key: values[i] for key, values in settings.items()},
                **{name: getattr(t, name) for name in COLUMNS},
            }
            for i, t in enumerate(trials)
        ]
        write_csv(rows, folder / TABLE)
        headings = ["trial", *(key.rpartition(".")[2] for key in settings), "WER", "base's own WER", "epochs", "score"]
        cells = [
            (
                str(t.number),
                *(_short(values[i]) for values in settings.values()),
                f"{percent(t.wer_before)} -> {percent(t.wer_after)}",
                f"{percent(t.base_wer_before)} -> {percent(t.base_wer_after)}",
                str(t.epochs),
                f"{t.score:.3f}",
            )
            for i, t in enumerate(trials)
        ]
        console = Console(width=WIDTH)
        console.print(table("Best first", headings, cells))
        say(str(folder / TABLE))


def _short(value: str) -> str:
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value
