"""Many users in one run against the training script once per user, with cross-validation and the default settings.

    python benchmarks/many_users.py --users 50 --utterances 10

The users' recordings are synthetic voices' (the `[demo]` extra); the base is the demo's. The script is run for a few
users, as a process of its own as a person would, and its time extrapolated to all; for these users the results of both
ways are compared.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from demo.corpus import DEMO_USERS, write_user_corpora
from demo.run import BASE_MODEL, SCRIPTS
from nemo_ds2_adapters import AdapterStore
from nemo_ds2_adapters.formats.reading import read_adapters


def write_manifests(folder: Path, users: int, utterances: int) -> tuple[Path, dict[str, Path]]:
    """A manifest of all users, and one of each. Users share the demo's two voices, but hardly any sentence."""
    write_user_corpora(folder / "corpus")
    lines = []
    for voice in DEMO_USERS:
        manifest = folder / "corpus" / voice.name / "train.json"
        for line in manifest.read_text("utf-8").splitlines():
            entry = json.loads(line)
            lines.append({**entry, "audio_filepath": str((manifest.parent / entry["audio_filepath"]).resolve())})
    chance = random.Random(0)
    half = len(lines) // 2
    everyone, own = folder / "all.json", {}
    for number in range(users):
        name = f"user_{number:03d}"
        some = chance.sample(lines[:half] if number % 2 else lines[half:], utterances)
        own[name] = folder / f"{name}.json"
        own[name].write_text("".join(f"{json.dumps({**line, 'speaker': name})}\n" for line in some), "utf-8")
    everyone.write_text("".join(path.read_text("utf-8") for path in own.values()), "utf-8")
    return everyone, own


def run_script(name: str, *overrides: str) -> float:
    """Seconds that a script takes, from the start of its process to the end."""
    started = time.perf_counter()
    command = [sys.executable, str(SCRIPTS / name), f"model.nemo_model={BASE_MODEL}", *overrides]
    subprocess.run([*command, "trainer.enable_progress_bar=false"], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--utterances", type=int, default=10, help="of each user")
    parser.add_argument("--measured", type=int, default=2, help="users for whom the script is run")
    parser.add_argument("overrides", nargs="*", help="settings of both, for example model.adapter.mlp.layers=last")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        everyone, own = write_manifests(folder, arguments.users, arguments.utterances)
        alone = {}
        for user in list(own)[: arguments.measured]:
            experiment = (f"exp_manager.exp_dir={folder}", f"exp_manager.name={user}", "exp_manager.version=run")
            manifest = f"model.train_ds.manifest_filepath={own[user]}"
            adapter = f"model.adapter.adapter_name={user}"
            alone[user] = run_script("train_asr_adapter.py", adapter, manifest, *experiment, *arguments.overrides)
        manifest = f"model.train_ds.manifest_filepath={everyone}"
        places = (f"adapter_store={folder / 'store'}", f"output_dir={folder / 'report'}")
        together = run_script("adapt_speakers.py", manifest, *places, *arguments.overrides)

        store, difference = AdapterStore(folder / "store"), 0.0
        for user in alone:
            (theirs,) = read_adapters(folder / user / "run" / "checkpoints" / "adapters.pt").values()
            mine = store.get(user)
            wanted, about = theirs.metadata, mine.metadata
            assert (about["epochs"], about["wer_after"]) == (wanted["epochs"], wanted["wer_after"]), (about, wanted)
            for point, state in theirs.weights.items():
                gaps = [float((value - mine.weights[point][key]).abs().max()) for key, value in state.items()]
                difference = max(difference, *gaps)
    total = statistics.mean(alone.values()) * arguments.users
    table = Table(title=f"{arguments.users} users, {arguments.utterances} utterances each, demo base")
    for heading in ("way", "seconds", "per user", "ratio"):
        table.add_column(heading, justify="right" if heading != "way" else "left")
    per_user = total / arguments.users
    table.add_row(f"script per user (from {len(alone)})", f"{total:.0f}", f"{per_user:.1f}", f"{total / together:.1f}")
    table.add_row("one run", f"{together:.0f}", f"{together / arguments.users:.1f}", "1")
    console = Console(width=100)
    console.print(table)
    console.print(f"same epochs and word error rates; largest difference of a weight {difference:.1e}")


if __name__ == "__main__":
    main()
