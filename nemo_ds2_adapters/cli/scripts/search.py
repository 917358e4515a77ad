"""Search for the settings of an adapter, scored for what it gains and for what is lost on the base's own domain."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from nemo_ds2_adapters.adaptation.fit_settings import FitSettings
from nemo_ds2_adapters.adaptation.one_speaker import adapt_speaker
from nemo_ds2_adapters.adapters.chosen import chosen_adapter
from nemo_ds2_adapters.adapters.enabling import enabled_adapters
from nemo_ds2_adapters.cli.output import say
from nemo_ds2_adapters.cli.scripts.script import files_read, hydra_command
from nemo_ds2_adapters.data.manifest import read_manifest
from nemo_ds2_adapters.data.transcripts import check_vocabulary
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.evaluation.errors import Score
from nemo_ds2_adapters.evaluation.recognised import recognise
from nemo_ds2_adapters.evaluation.report import WIDTH, percent, table, write_csv
from nemo_ds2_adapters.evaluation.search import TABLE, TRIALS, Trial, read_trials, settings_that_differ
from nemo_ds2_adapters.formats.atomic import check_not_input
from nemo_ds2_adapters.formats.nemo_archive import check_source, restore_model

MANIFESTS = [f"model.{name}.manifest_filepath" for name in ("train_ds", "validation_ds", "test_ds")]
COLUMNS = ("score", "wer_before", "wer_after", "base_wer_before", "base_wer_after", "epochs", "seconds")


@hydra_command("asr_adapters/asr_adaptation_hp", "asr_adapters/asr_adaptation_grid")
def search(cfg: DictConfig) -> float:
    adapter = chosen_adapter(cfg.model.adapter)
    check_source(cfg.model.nemo_model, cfg.model.pretrained_model)
    if cfg.search.base_manifest is None:
        raise InputError("search.base_manifest is not set; give a NeMo manifest of the base's own domain")
    if not cfg.search.max_base_loss > 0:
        raise InputError(f"search.max_base_loss={cfg.search.max_base_loss}: expected points of WER above 0")
    job = HydraConfig.get()
    number = 0 if OmegaConf.is_missing(job.job, "num") else job.job.num
    cfg.exp_manager.version = f"trial_{number}"

    settings = FitSettings.of(OmegaConf.to_container(cfg, resolve=True), has_validation=True)  # type: ignore[arg-type]
    train, validation, base = (read_manifest(OmegaConf.select(cfg, key), key) for key in MANIFESTS)
    model = restore_model(cfg.model.nemo_model, cfg.model.pretrained_model)
    check_vocabulary(base, MANIFESTS[2], model)
    inputs = files_read(cfg, *MANIFESTS)
    for name in (TRIALS, TABLE):
        check_not_input(Path(job.sweep.dir) / name, inputs)
    result = adapt_speaker(model, adapter, train, validation, settings, inputs, say)
    if result.wer_before is None or result.wer_after is None:
        raise InputError("the trial was not validated, so it has no score: leave validation on")
    result.model_path.unlink()  # a copy of the base per trial is too much; the adapter's file is kept
    after = recognise(model, base, batch_size=cfg.model.test_ds.batch_size)
    with enabled_adapters(model, None):
        before = recognise(model, base, batch_size=cfg.model.test_ds.batch_size)
    wer_before, wer_after = (sum((one.score for one in found), Score()).wer or 0.0 for found in (before, after))
    trial = Trial(
        number,
        list(job.overrides.task),
        result.wer_before,
        result.wer_after,
        wer_before,
        wer_after,
        result.epochs,
        result.seconds,
        cfg.search.max_base_loss / 100,
    )
    trial.append_to(Path(job.sweep.dir))
    print(f"trial {number}: score {trial.score:.3f}")
    return trial.score


def main(given: DictConfig | Sequence[str] | None = None) -> float | None:
    """Run the search; or one trial of it, whose score is returned, with a composed config."""
    arguments = sys.argv[1:] if given is None else given
    chosen = any(str(argument).startswith(("--config-name", "-cn", "hydra/sweeper=")) for argument in arguments)
    is_composed = isinstance(given, DictConfig)
    if not is_composed and not chosen and importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None:
        sys.exit(
            "error: the Optuna sweeper is missing: pip install 'nemo_ds2_adapters[search]', "
            "or search a grid with --config-name=asr_adaptation_grid"
        )
    return search(given)


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
