"""Word error rates before and after adaptation, per placement, over the speakers of a set.

python benchmarks/placement.py --base base.nemo --data DIR [--layers first,last,all] [KEY=VALUE ...]

DIR holds `adapt_train.json` and `adapt_test.json`, NeMo manifests with a field `speaker`. Every speaker's adapter is
trained with train_asr_adapter.py on the one and evaluated with eval_asr_adapter.py on the other, with the settings
of conf/asr_adapters/asr_adaptation.yaml but for what the command line says.
"""

import argparse
import contextlib
import io
import json
import tempfile
from collections import defaultdict
from pathlib import Path

from nemo.collections.asr.metrics.wer import word_error_rate_detail
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from nemo_ds2_adapters.cli.scripts.evaluate import main as evaluate_asr_adapter
from nemo_ds2_adapters.cli.scripts.train import main as train_asr_adapter

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "conf" / "asr_adapters" / "asr_adaptation.yaml"


def split_by_speaker(manifest: Path, out_dir: Path) -> dict[str, Path]:
    """One manifest per speaker, with absolute audio paths."""
    lines = defaultdict(list)
    for line in manifest.read_text("utf-8").splitlines():
        entry = json.loads(line)
        entry["audio_filepath"] = str((manifest.parent / entry["audio_filepath"]).resolve())
        lines[entry["speaker"]].append(json.dumps(entry))
    paths = {speaker: out_dir / f"{manifest.stem}_{speaker}.json" for speaker in sorted(lines)}
    for speaker, path in paths.items():
        path.write_text("\n".join(lines[speaker]) + "\n", "utf-8")
    return paths


def evaluate(cfg: DictConfig, model: Path, adapter: str | None, manifest: Path) -> tuple[int, int]:
    """Wrong words and reference words."""
    cfg = OmegaConf.merge(cfg, {"output_filename": str(manifest.with_suffix(".jsonl"))})
    cfg.model.nemo_model, cfg.model.adapter.adapter_name = str(model), adapter
    cfg.model.test_ds.manifest_filepath = str(manifest)
    evaluate_asr_adapter(cfg)
    scores = [json.loads(line) for line in Path(cfg.output_filename).read_text("utf-8").splitlines()]
    wer, words, *_ = word_error_rate_detail([s["hypothesis"] for s in scores], [s["reference"] for s in scores])
    return round(wer * words), words


def adapt(cfg: DictConfig, base: Path, speaker: str, manifest: Path, work_dir: Path) -> Path:
    """Train one speaker's adapter; the adapted model."""
    cfg = cfg.copy()
    cfg.model.nemo_model, cfg.model.adapter.adapter_name = str(base), f"user_{speaker}"
    cfg.model.train_ds.manifest_filepath = str(manifest)
    place = {"exp_dir": str(work_dir), "name": speaker, "version": "run"}
    cfg.exp_manager.update({**place, "create_tensorboard_logger": False})
    train_asr_adapter(cfg)
    return work_dir / speaker / "run" / "checkpoints" / f"{speaker}.nemo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--layers", default="first,last,all", help="placements, joined by commas")
    parser.add_argument("overrides", nargs="*", help="settings, for example trainer.max_epochs=10")
    arguments = parser.parse_args()
    quiet = ["trainer.enable_progress_bar=false", "log_level=ERROR"]
    cfg = OmegaConf.merge(OmegaConf.load(CONFIG), OmegaConf.from_dotlist([*quiet, *arguments.overrides]))
    table = Table("placement", title=f"{arguments.data.name}, {' '.join(arguments.overrides) or 'default settings'}")
    for heading in ("base WER", "adapted WER", "errors", "speakers worse", "most words worse"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        work_dir = Path(folder)
        train = split_by_speaker(arguments.data / "adapt_train.json", work_dir)
        test = split_by_speaker(arguments.data / "adapt_test.json", work_dir)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            before = {s: evaluate(cfg, arguments.base, None, test[s]) for s in tqdm(test, desc="base")}
        words = sum(total for _, total in before.values())
        base_errors = sum(errors for errors, _ in before.values())
        for layers in arguments.layers.split(","):
            cfg.model.adapter[cfg.model.adapter.adapter_type].layers = layers
            after = {}
            for speaker in tqdm(train, desc=layers):
                with contextlib.redirect_stdout(said):
                    model = adapt(cfg, arguments.base, speaker, train[speaker], work_dir / layers)
                    after[speaker], _ = evaluate(cfg, model, f"user_{speaker}", test[speaker])
            worse = [after[s] - before[s][0] for s in after if after[s] > before[s][0]]
            errors = sum(after.values())
            print(f"{layers}: {base_errors} -> {errors} wrong words of {words}")
            table.add_row(
                layers,
                f"{100 * base_errors / words:.1f} %",
                f"{100 * errors / words:.1f} %",
                f"{base_errors} -> {errors} of {words}",
                f"{len(worse)} of {len(after)}",
                str(max(worse, default=0)),
            )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
