"""Peak memory of an adapter's training on prefix activations, against the number of utterances.

python benchmarks/cache_memory.py [--memory 0.01] [--utterances 200,2000] [--seconds 2]

Each number of utterances is trained in a process of its own, with the demo base and an adapter behind the last layer:
`--memory` GB as `cache_memory`, the rest of the activations in files. Counted is what the process itself holds
(Linux: RssAnon); file pages in memory are the system's, which takes them back when it needs them. Freed blocks that
the C library keeps for itself are not counted either: MALLOC_MMAP_THRESHOLD_ makes it give them back.
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table


def own_memory() -> float:
    """Resident memory of this process that no file backs, in GB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("RssAnon:")[2].split()[0]) / 1e6


def train(utterances: int, seconds: float, memory: float) -> None:
    """Prints GB of this process before training and at the peak, and of all activations."""
    import prefix_cache

    from nemo_ds2_adapters.activations.cache import PrefixCache

    prefix_cache.quiet("ERROR")
    stored = [0]
    put = PrefixCache.put

    def counting_put(self: PrefixCache, key: dict, tensor: prefix_cache.torch.Tensor) -> None:
        stored[0] += tensor.nbytes
        put(self, key, tensor)

    PrefixCache.put = counting_put  # type: ignore[method-assign]
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        manifest = prefix_cache.write_recordings(Path(folder), utterances, seconds)
        model = prefix_cache.build_base("demo")
        settings = {"accelerator": "cpu", "folds": 0, "enable_progress_bar": False, "create_tensorboard_logger": False}
        before = own_memory()
        peak = [before]

        def watch() -> None:
            while not stop.wait(0.002):
                peak[0] = max(peak[0], own_memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        with contextlib.redirect_stdout(io.StringIO()):
            prefix_cache.adapt(
                model,
                "adapted",
                manifest,
                **prefix_cache.ADAPTERS["mlp"],
                **settings,
                cache="required",
                cache_memory=memory,
                max_epochs=2,
                batch_size=16,
                exp_dir=folder,
            )
        stop.set()
        watcher.join()
    print(before, peak[0], stored[0] / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=float, default=0.01, help="GB, the limit")
    parser.add_argument("--utterances", default="200,2000")
    parser.add_argument("--seconds", type=float, default=2.0, help="of an utterance, on average")
    parser.add_argument("--train", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train, arguments.seconds, arguments.memory)
        return
    table = Table("utterances", title=f"cache_memory={arguments.memory} GB")
    for heading in ("all activations GB", "before training GB", "peak GB", "time s"):
        table.add_column(heading, justify="right")
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    for number in arguments.utterances.split(","):
        command = [sys.executable, __file__, "--train", number]
        for name in ("memory", "seconds"):
            command += [f"--{name}", str(getattr(arguments, name))]
        started = time.monotonic()
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
        before, peak, total = map(float, output.splitlines()[-1].split())
        table.add_row(number, f"{total:.3f}", f"{before:.3f}", f"{peak:.3f}", f"{time.monotonic() - started:.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
