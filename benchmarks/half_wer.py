"""Seconds until an adapter has halved the base's word error rate, for each placement.

python benchmarks/half_wer.py --base base.nemo --data DIR [--layers first,last,all] [NAME=VALUE ...]

DIR holds `adapt_train.json` and `adapt_test.json`, NeMo manifests with a field `speaker`. Every speaker's adapter is
trained by `adapt` on the one and measured after each epoch on the other; NAME=VALUE are settings of `adapt`. The
seconds count from the restored model on: the frozen part once, training, and measuring.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
from pathlib import Path

from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf
from placement import split_by_speaker
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from nemo_ds2_adapters import Adaptation, adapt
from nemo_ds2_adapters.cli.scripts.script import quiet


def halved(result: Adaptation) -> dict[str, float] | None:
    """The first epoch with at most half of the base's word error rate, and its number; None if there is none."""
    for number, epoch in enumerate(result.history, start=1):
        if result.wer_before is not None and epoch["val_wer"] <= result.wer_before / 2:
            return {**epoch, "epoch": number}
    return None


def shown(values: list[float | None], places: int) -> str:
    """One number per speaker, a dash where there is none."""
    return ", ".join("-" if value is None else f"{value:.{places}f}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--layers", default="first,last,all", help="placements, joined by commas")
    parser.add_argument("settings", nargs="*", help="of adapt, for example max_epochs=30 lr=0.002")
    arguments = parser.parse_args()
    quiet("ERROR")
    settings = OmegaConf.to_container(OmegaConf.from_dotlist(arguments.settings))
    table = Table("placement", title=f"{arguments.data.name}, {' '.join(arguments.settings) or 'default settings'}")
    for heading in ("base WER", "last WER", "s to half, median", "per speaker", "epochs to half", "s per epoch"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        train = split_by_speaker(arguments.data / "adapt_train.json", Path(folder))
        test = split_by_speaker(arguments.data / "adapt_test.json", Path(folder))
        for layers in arguments.layers.split(","):
            results = []
            for speaker in tqdm(train, desc=layers):
                model = ASRModel.restore_from(str(arguments.base), map_location="cpu")
                with contextlib.redirect_stdout(io.StringIO()):
                    results.append(
                        adapt(
                            model,
                            "adapted",
                            train[speaker],
                            test[speaker],
                            layers=layers,
                            exp_dir=f"{folder}/{layers}/{speaker}",
                            enable_progress_bar=False,
                            create_tensorboard_logger=False,
                            **settings,
                        )
                    )
            halves = [halved(result) for result in results]
            seconds = [half["seconds"] if half else None for half in halves]
            reached = [s for s in seconds if s is not None]
            times = [(r.history[-1]["seconds"] - r.history[0]["seconds"]) / (len(r.history) - 1) for r in results]
            table.add_row(
                layers,
                f"{100 * statistics.mean(r.wer_before or 0.0 for r in results):.1f} %",
                f"{100 * statistics.mean(r.history[-1]['val_wer'] for r in results):.1f} %",
                f"{statistics.median(reached):.1f}" if len(reached) == len(seconds) else "not reached by all",
                shown(seconds, 1),
                shown([half["epoch"] if half else None for half in halves], 0),
                f"{statistics.median(times):.2f}",
            )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
