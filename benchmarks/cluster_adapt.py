"""Many people adapted by the workers of a Ray cluster of this machine.

    python benchmarks/cluster_adapt.py throughput  # one worker, two, two processes by themselves, one
    python benchmarks/cluster_adapt.py kills       # workers at five random moments, the driver at three
    python benchmarks/cluster_adapt.py lines       # a manifest of a million lines: memory, and until the first result

The people are synthetic (the `[demo]` extra), with about ten seconds of speech each, and are adapted with the demo's
base and prior; everything runs with one thread.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.processes import titled
from demo.people import write_others
from demo.run import BASE_MODEL, PRIOR
from nemo_ds2_adapters.cli.output import quiet
from nemo_ds2_adapters.store.store import AdapterStore

CHECKOUT = Path(__file__).parents[1]
SENTENCES = 3  # of each person
BASE, PRIOR_FILE = str(CHECKOUT / BASE_MODEL), str(CHECKOUT / PRIOR)


def write_people(folder: Path, people: int) -> list[dict[str, Any]]:
    """Lines of a manifest."""
    write_others(folder, people, SENTENCES, 1)
    lines = [json.loads(line) for line in (folder / "train.json").read_text("utf-8").splitlines()]
    return [{**line, "audio_filepath": str(folder / line["audio_filepath"])} for line in lines]


def write_manifest(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    return path


def command(manifest: Path, folder: Path, *overrides: str) -> list[str]:
    """The command line, with a store and a report in a folder."""
    keys = {
        "model.nemo_model": BASE,
        "model.train_ds.manifest_filepath": manifest,
        "model.adapter.prior": PRIOR_FILE,
        "adapter_store": folder / "store",
        "output_dir": folder / "report",
    }
    values = [f"{key}={value}" for key, value in keys.items()]
    return [sys.executable, "-W", "ignore", "-m", "nemo_ds2_adapters.cli", "adapt-speakers", *values, *overrides]


def alone(manifest: Path, store: Path) -> None:
    """A process by itself, which says when it is ready, begins when it is told to, and says what it has taken."""
    options = _options()
    from nemo_ds2_adapters.adaptation.many_speakers import adapt_speakers
    from nemo_ds2_adapters.data.speakers import read_speakers

    speakers, _ = read_speakers(str(manifest), "manifest", "speaker")
    print("ready", flush=True)
    sys.stdin.readline()
    began, used = time.perf_counter(), time.process_time()
    adapt_speakers(options.pop("model"), speakers, AdapterStore(store), say=lambda line: None, **options)
    print(json.dumps([time.perf_counter() - began, time.process_time() - used]), flush=True)


def by_processes(manifests: Sequence[Path], folder: Path) -> tuple[float, float]:
    """Seconds until all of these processes have done their manifest, and processor time of all."""
    commands = [[sys.executable, "-W", "ignore", __file__, "alone", str(path), str(folder)] for path in manifests]
    running = [subprocess.Popen(one, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True) for one in commands]
    for process in running:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "ready":
            pass
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    taken = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    return max(seconds for seconds, _ in taken), sum(used for _, used in taken)


def by_workers(workers: int, manifest: Path, folder: Path) -> tuple[float, float]:
    """The same of a cluster whose workers are ready."""
    from nemo_ds2_adapters.adaptation.plan import Plan
    from nemo_ds2_adapters.adapters.fingerprint import fingerprint
    from nemo_ds2_adapters.cluster.adapt import adapt_manifests, workers_of
    from nemo_ds2_adapters.cluster.settings import ClusterSettings
    from nemo_ds2_adapters.cluster.shards import Shards
    from nemo_ds2_adapters.cluster.worker import Base, Source

    options = _options()
    model, settings, start = (options.pop(name) for name in ("model", "settings", "start"))
    (folder / "shards").mkdir(parents=True)
    base = Base(BASE, None, TRAINER, fingerprint(model), os.getcwd(), 1)
    with workers_of(ClusterSettings(workers=workers), base, print) as pool:
        pool.wait()
        AdapterStore(folder / "store")
        began = time.perf_counter()
        shards = Shards(str(manifest), "manifest", "speaker", folder / "shards")
        source = Source(str(folder / "store"), shards.manifests, "speaker", {})
        plan = partial(Plan.of, fingerprint(model), settings, start, say=print, **options)
        progress = adapt_manifests(pool, model, shards, source, plan, folder / "report.parquet", print)
        return time.perf_counter() - began, progress.core_seconds


TRAINER = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}


def _options() -> dict[str, Any]:
    """What `adapt_speakers` takes, with the shipped settings."""
    from omegaconf import OmegaConf

    from nemo_ds2_adapters.adaptation.fit_settings import StartSettings
    from nemo_ds2_adapters.adaptation.settings import Settings
    from nemo_ds2_adapters.adaptation.start import starting_adapter
    from nemo_ds2_adapters.adaptation.voice_prior.prior import read_prior
    from nemo_ds2_adapters.configs import shipped_config
    from nemo_ds2_adapters.formats.nemo_archive import restore_model

    values: Any = OmegaConf.to_container(shipped_config("asr_adapters/speaker_adaptation"), resolve=True)
    settings, model = Settings.of(values), restore_model(BASE, None)
    start = starting_adapter(model, "speaker", StartSettings.of(values["model"]["adapter"]), settings.seed)
    return {"model": model, "settings": settings, "start": start, "prior": read_prior(PRIOR_FILE)}


def throughput(folder: Path, people: int) -> None:
    """The table; and whether everybody got the same everywhere."""
    lines = write_people(folder, people)
    everybody = write_manifest(folder / "all.json", lines)
    users = sorted({line["speaker"] for line in lines})
    halves = [
        write_manifest(folder / f"{part}.json", [line for line in lines if users.index(line["speaker"]) % 2 == part])
        for part in range(2)
    ]
    print(f"{people} people, {sum(line['duration'] for line in lines) / people:.1f} s of speech each")
    ways = {
        "cluster, 1 worker": partial(by_workers, 1, everybody, folder / "cluster 1"),
        "cluster, 2 workers": partial(by_workers, 2, everybody, folder / "cluster 2"),
        "two processes, half of the people each": partial(by_processes, halves, folder / "two"),
        "one process": partial(by_processes, [everybody], folder / "one"),
    }
    first = None
    for name, way in ways.items():
        seconds, used = way()
        first = first or seconds
        speed_up, each = first / seconds, used / people
        print(f"{name:40} {seconds:6.1f} s, {speed_up:.2f} x, {each:.2f} core-seconds each", flush=True)
    for name in ("cluster 1/store", "cluster 2/store", "two"):
        compare(folder / "one", folder / name, users)


def compare(wanted: Path, found: Path, users: Sequence[str]) -> None:
    """Everybody's adapters of two stores."""
    one, other = (AdapterStore(path, create=False) for path in (wanted, found))
    equal, largest, differ = 0, 0.0, 0
    for user in users:
        a, b = one.get(user), other.get(user)
        assert len(other.versions(user)) == 1, user
        gaps = [float((v - b.weights[point][k]).abs().max()) for point, s in a.weights.items() for k, v in s.items()]
        equal += max(gaps) == 0.0
        largest = max(largest, *gaps)
        differ += any(a.metadata[key] != b.metadata[key] for key in ("kind", "epochs", "wer_before", "wer_after"))
    print(f"{found}: {equal} of {len(users)} adapters equal bit for bit, largest difference {largest:.1e}; ", end="")
    print(f"{differ} with another decision; everybody has one version")


def kills(folder: Path, people: int) -> None:
    """Kill workers, then drivers, and count what comes of it."""
    lines = write_people(folder, people)
    manifest = write_manifest(folder / "all.json", lines)
    users = sorted({line["speaker"] for line in lines})
    chance = random.Random(0)
    undisturbed = command(manifest, folder / "undisturbed", "cluster=ray", "cluster.workers=2")
    subprocess.run(undisturbed, check=True, capture_output=True)

    running = start(command(manifest, folder / "workers", "cluster=ray", "cluster.workers=2"), folder / "workers.log")
    for done in sorted(chance.sample(range(1, people - 20), 5)):
        wait_for(folder / "workers" / "store", done, running)
        while not (running_workers := titled("ray::Worker", below=running.pid)):
            time.sleep(0.1)
        victim = chance.choice(running_workers)
        os.kill(victim, signal.SIGKILL)
        print(f"worker {victim} killed after {stored(folder / 'workers' / 'store')} users", flush=True)
    assert running.wait() == 0
    print((folder / "workers.log").read_text("utf-8").count("a worker was lost"), "losses told")
    compare(folder / "undisturbed" / "store", folder / "workers" / "store", users)

    again = command(manifest, folder / "drivers", "cluster=ray", "cluster.workers=2")
    for done in sorted(chance.sample(range(1, people - 20), 3)):
        running = start(again, folder / "drivers.log")
        wait_for(folder / "drivers" / "store", done, running)
        running.kill()
        running.wait()
        print(f"driver killed after {stored(folder / 'drivers' / 'store')} users", flush=True)
    finished = subprocess.run(again, check=True, capture_output=True, text=True).stdout
    print(finished.splitlines()[-1])
    compare(folder / "undisturbed" / "store", folder / "drivers" / "store", users)


def start(line: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as file:
        return subprocess.Popen(line, stdout=file, stderr=file)


def stored(store: Path) -> int:
    return sum(1 for _ in store.glob("users/*/*/*.safetensors"))


def wait_for(store: Path, users: int, process: "subprocess.Popen[bytes]") -> None:
    while stored(store) < users:
        assert process.poll() is None
        time.sleep(0.05)


def many_lines(recordings: Sequence[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    """Ten lines of each user, in no order: recordings that begin a little later each time."""
    numbers = [*range(count)]
    random.Random(0).shuffle(numbers)
    for number in numbers:
        line, offset = recordings[number % len(recordings)], round(1e-4 * (number // len(recordings)), 4)
        yield {**line, "offset": offset, "duration": line["duration"] - offset, "speaker": f"user {number // 10}"}


def lines(folder: Path, people: int, count: int) -> None:
    """A manifest of so many lines, until some groups are done."""
    manifest = folder / "lines.json"
    with manifest.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(line)}\n" for line in many_lines(write_people(folder, people), count))
    print(f"{count} lines, {manifest.stat().st_size / 1e6:.0f} MB")
    began = time.perf_counter()
    run = command(manifest, folder / "lines", "cluster=ray", "cluster.workers=2")
    process = subprocess.Popen(run, stdout=-1, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        print(f"{time.perf_counter() - began:6.1f} s  {line.rstrip()}", flush=True)
        if (found := re.search(r" (\d+) users after", line)) and int(found[1]) >= 60:
            break
    process.kill()
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("throughput", "kills", "lines", "alone"))
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--lines", type=int, default=1_000_000)
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1")
    quiet("ERROR")
    if options.what == "alone":
        alone(*options.paths)
        return
    with tempfile.TemporaryDirectory() as name:
        if options.what == "throughput":
            throughput(Path(name), options.people)
        elif options.what == "kills":
            kills(Path(name), options.people)
        else:
            lines(Path(name), options.people, options.lines)


if __name__ == "__main__":
    main()
