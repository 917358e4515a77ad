"""The main job on data at hand: five people, whom neither base nor prior has heard, say three and ten sentences.

python -m demo.run --output demo_output
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from demo.corpus import DEMO_USERS, write_user_corpora
from demo.report import Person, Point, print_table, write_reports

FOLDER = Path(__file__).parent
BASE_MODEL, PRIOR = FOLDER / "base.nemo", FOLDER / "prior.pt"
STREAM_BASE_MODEL = FOLDER / "stream_base.nemo"  # hears no future
FSDD = FOLDER / "fsdd"  # real speech, with its licence
SCRIPTS = FOLDER.parent / "examples" / "asr" / "asr_adapters"
AMOUNTS = (3, 10)  # utterances that a person gives
AT_ONCE = 2  # scripts

Entry = dict[str, object]  # a line of a manifest


def run_demo(output: Path) -> list[Person]:
    """Adapt everybody by three and by ten utterances, evaluate, and write table, `report.json` and `report.png`.

    Args:
        output: directory for everything the demo makes; what an earlier demo left there is overwritten.

    Returns:
        what became of each person.

    Raises:
        FileNotFoundError: the base model, the prior or the scripts are missing.
        RuntimeError: a script failed; its last lines are in the message.
    """
    for needed in (BASE_MODEL, PRIOR, SCRIPTS / "adapt_speakers.py"):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} is missing; run the demo from a complete checkout")
    shutil.rmtree(output, ignore_errors=True)
    before = _sha256(BASE_MODEL)
    print("1/3  two synthetic voices are made to speak; three real people are in demo/fsdd")
    train, test = _collect(output / "corpus")
    _write(output / "test.json", test)
    print(f"2/3  adapt_speakers.py: an adapter for each by {AMOUNTS[0]} and by {AMOUNTS[1]} utterances")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda amount: _adapt(output, _first(train, amount), amount), AMOUNTS))
        print("3/3  eval_asr_adapter.py: everybody with the base, the population's adapter, and their own")
        wers = dict(zip((0, *AMOUNTS), pool.map(lambda amount: _evaluate(output, amount), (0, *AMOUNTS))))
    people = [_person(name, train, test, wers) for name in wers[0]]
    write_reports(people, output)
    print_table(people)
    unchanged = "not a byte changed" if _sha256(BASE_MODEL) == before else "CHANGED"
    size = max(path.stat().st_size for path in (output / "adapters_10").rglob("*.safetensors"))
    print(f"base {unchanged}; an adapter takes {size / 1e3:.0f} kB; picture in {output / 'report.png'}")
    return people


def _collect(corpus: Path) -> tuple[list[Entry], list[Entry]]:
    """Everybody's utterances for training and for the test, with absolute paths."""
    write_user_corpora(corpus, train=max(AMOUNTS), validation=0)
    folders = [*(corpus / user.name for user in DEMO_USERS), FSDD]
    return tuple(
        [entry for folder in folders for entry in _read(folder / f"{split}.json")] for split in ("train", "test")
    )  # type: ignore[return-value]


def _read(manifest: Path) -> list[Entry]:
    entries = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
    return [{**entry, "audio_filepath": str(manifest.parent / entry["audio_filepath"])} for entry in entries]


def _write(manifest: Path, entries: Sequence[Entry]) -> None:
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")


def _of(entries: Sequence[Entry], name: str) -> list[Entry]:
    return [entry for entry in entries if entry["speaker"] == name]


def _first(entries: Sequence[Entry], amount: int) -> list[Entry]:
    names = dict.fromkeys(str(entry["speaker"]) for entry in entries)
    return [entry for name in names for entry in _of(entries, name)[:amount]]


def _adapt(output: Path, entries: Sequence[Entry], amount: int) -> None:
    manifest = output / f"train_{amount}.json"
    _write(manifest, entries)
    _run_script(
        "adapt_speakers.py",
        f"model.nemo_model={BASE_MODEL}",
        f"model.adapter.prior={PRIOR}",
        f"model.train_ds.manifest_filepath={manifest}",
        f"adapter_store={output / f'adapters_{amount}'}",
        f"output_dir={output / f'adapted_{amount}'}",
    )


def _evaluate(output: Path, amount: int) -> dict[str, tuple[float, float]]:
    """By person, the word error rates of the base and of the adapter by so many utterances; 0: the population's."""
    found = output / f"eval_{amount}.json"

    _run_script(
        "eval_asr_adapter.py",
        f"model.nemo_model={BASE_MODEL}",
        "model.adapter.adapter_key=speaker",
        *([f"adapter_store={output / f'adapters_{amount}'}"] if amount else []),
        f"adapter_default={PRIOR}",
        f"model.test_ds.manifest_filepath={output / 'test.json'}",
        f"output_filename={found.with_suffix('.jsonl')}",
    )
    users = json.loads(found.read_text("utf-8"))["users"]
    return {user["user"]: (user["base_wer"], user["adapted_wer"]) for user in users}


def _person(
    name: str, train: Sequence[Entry], test: Sequence[Entry], wers: dict[int, dict[str, tuple[float, float]]]
) -> Person:
    speech = {amount: sum(float(str(e["duration"])) for e in _of(train, name)[:amount]) for amount in wers}
    points = tuple(Point(amount, speech[amount], wers[amount][name][1]) for amount in wers)
    synthetic = {user.name for user in DEMO_USERS}
    return Person(name, "synthetic" if name in synthetic else "real", len(_of(test, name)), wers[0][name][0], points)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run_script(name: str, *overrides: str) -> None:
    # Two scripts run at once, so each gets half of the cores: threads of both on every core would stall each other.
    threads = max(1, (os.cpu_count() or 1) // AT_ONCE)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, str(SCRIPTS / name), "trainer.enable_progress_bar=false", *overrides]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    if finished.returncode:
        last_lines = "\n".join((finished.stdout + finished.stderr).splitlines()[-15:])
        raise RuntimeError(f"{name} failed with exit code {finished.returncode}:\n{last_lines}")


def main() -> None:
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(
        description="Train and evaluate adapters for two synthetic and three real people."
    )
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="directory for all results")
    try:
        run_demo(parser.parse_args().output.resolve())
    except (FileNotFoundError, RuntimeError, ImportError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
