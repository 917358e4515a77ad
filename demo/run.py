"""The main job on embedded data: two people, whom the base never heard, get an adapter each.

python -m demo.run --output demo_output
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nemo.collections.asr.metrics.wer import word_error_rate

from demo.corpus import DEMO_USERS, write_user_corpora
from demo.report import UserResult, print_table, write_reports

BASE_MODEL = Path(__file__).parent / "base.nemo"
SCRIPTS = Path(__file__).parents[1] / "examples" / "asr" / "asr_adapters"


@dataclass(frozen=True)
class Job:
    """One user's part of the demo: where the recordings lie and where the results go."""

    user: str
    corpus: Path
    output: Path

    @property
    def adapted_model(self) -> Path:
        """The `.nemo` that the training script leaves."""
        return self.output / "demo" / "run" / "checkpoints" / "demo.nemo"


def run_demo(output: Path) -> list[UserResult]:
    """Make the corpus, train and evaluate both users, and write table, `report.json` and `report.png`.

    Args:
        output: directory for everything the demo makes; what an earlier demo left there is overwritten.

    Returns:
        one result per user.

    Raises:
        FileNotFoundError: the base model or the scripts are missing.
        RuntimeError: a script failed; its last lines are in the message.
    """
    for needed in (BASE_MODEL, SCRIPTS / "train_asr_adapter.py"):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} is missing; run the demo from a complete checkout")
    shutil.rmtree(output, ignore_errors=True)
    print("1/2  making the corpus of two synthetic voices")
    write_user_corpora(output / "corpus")
    jobs = [Job(user.name, output / "corpus" / user.name, output / user.name) for user in DEMO_USERS]
    print("2/2  train_asr_adapter.py and eval_asr_adapter.py for both users at once, about 2 minutes")
    with ThreadPoolExecutor(max_workers=len(jobs)) as pool:
        results = list(pool.map(_adapt_and_evaluate, jobs))
    write_reports(results, output)
    print_table(results)
    return results


def _adapt_and_evaluate(job: Job) -> UserResult:
    started = time.monotonic()
    _run_script(
        "train_asr_adapter.py",
        f"model.nemo_model={BASE_MODEL}",
        f"model.adapter.adapter_name={job.user}",
        f"model.train_ds.manifest_filepath={job.corpus / 'train.json'}",
        f"model.validation_ds.manifest_filepath={job.corpus / 'validation.json'}",
        f"exp_manager.exp_dir={job.output}",
        "exp_manager.name=demo",
        "exp_manager.version=run",
    )
    seconds = time.monotonic() - started
    base_wer, utterances = _evaluate(job, BASE_MODEL, "null")
    adapted_wer, _ = _evaluate(job, job.adapted_model, job.user)
    return UserResult(job.user, utterances, base_wer, adapted_wer, round(seconds, 1))


def _evaluate(job: Job, model: Path, adapter: str) -> tuple[float, int]:
    """Word error rate on the user's test sentences, as a fraction, and their number."""
    output = job.output / f"eval_{'base' if adapter == 'null' else 'adapted'}.jsonl"
    _run_script(
        "eval_asr_adapter.py",
        f"model.nemo_model={model}",
        f"model.adapter.adapter_name={adapter}",
        f"model.test_ds.manifest_filepath={job.corpus / 'test.json'}",
        f"output_filename={output}",
    )
    lines = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    errors = word_error_rate([line["hypothesis"] for line in lines], [line["reference"] for line in lines])
    return errors, len(lines)


def _run_script(name: str, *overrides: str) -> None:
    # Two scripts run at once, so each gets half of the cores: threads of both on every core would stall each other.
    threads = max(1, (os.cpu_count() or 1) // len(DEMO_USERS))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, str(SCRIPTS / name), "trainer.enable_progress_bar=false", *overrides]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    if finished.returncode:
        last_lines = "\n".join((finished.stdout + finished.stderr).splitlines()[-15:])
        raise RuntimeError(f"{name} failed with exit code {finished.returncode}:\n{last_lines}")


def main() -> None:
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(description="Train and evaluate adapters for two synthetic voices.")
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="directory for all results")
    try:
        run_demo(parser.parse_args().output.resolve())
    except (FileNotFoundError, RuntimeError, ImportError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
