"""A bank in front of a store: what a hit and a miss cost, and a minute of many users asking at once.

    python benchmarks/bank.py                    # stores of 10, 1,000 and 100,000 users, then the minute
    python benchmarks/bank.py --seconds 0        # without the minute
    python benchmarks/bank.py --users 1000 --resident 100 --seconds 10

In the minute, threads ask for one user and for batches of 16 in turn, some users much more often than others (Zipf's
law), let the routed adapters compute, and check every row: each user's adapter adds the user's own number.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.utils import logging
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from store import Filler, user_id_of

from nemo_ds2_adapters import AdapterStore, add_adapter
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.modules.routing import active_routing, encoder_point
from nemo_ds2_adapters.recognition.bank import AdapterBank

BATCH_SIZE = 16
NUMBER_OF_THE_FIRST = 0.5  # a value whose bytes are found in the file; the others have 1, 2, 3, ...


def build_model() -> EncDecCTCModel:
    """The smallest DeepSpeech2; what a lookup costs does not depend on it."""
    encoder = {"feat_in": 16, "n_layers": 1, "d_model": 4, "conv_channels": [2, 2]}
    cfg = {
        "preprocessor": {"_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor", "features": 16},
        "encoder": {"_target_": "nemo_ds2_adapters.modules.DeepSpeech2EncoderAdapter", **encoder},
        "decoder": {
            "_target_": "nemo_ds2_adapters.modules.DeepSpeech2Decoder",
            "feat_in": None,
            "num_classes": -1,
            "vocabulary": ["a"],
        },
    }
    return EncDecCTCModel(cfg=OmegaConf.create(cfg)).eval()


def adapter_of(model: EncDecCTCModel, hidden_dims: list[int]) -> Adapter:
    """An adapter that adds `NUMBER_OF_THE_FIRST` to every value; the model is left without it."""
    cfg = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": hidden_dims, "layers": "first"}
    add_adapter(model, "benchmark", {**cfg, "enabled": False})
    adapter = attached_adapter(model, "benchmark")
    (state,) = adapter.weights.values()
    for weight in state.values():
        weight.zero_()
    list(state.values())[-1].fill_(NUMBER_OF_THE_FIRST)  # the last layer's bias
    return adapter


class NumberedFiller(Filler):
    """Gives each user's adapter the user's number in place of the first one's."""

    def __init__(self, root: Path, adapter: Adapter) -> None:
        super().__init__(root, adapter)
        (state,) = adapter.weights.values()
        self._bias = list(state.values())[-1].numpy()

    def bytes_of(self, user_id: str) -> bytes:
        """The file of a user."""
        own = np.full_like(self._bias, int(user_id[len("user") :].split("@")[0])).tobytes()
        return super().bytes_of(user_id).replace(self._bias.tobytes(), own)


def number_of(user: int) -> float:
    """What the adapter of a user adds."""
    return float(user) if user else NUMBER_OF_THE_FIRST


def milliseconds(calls: list[Callable[[], object]]) -> str:
    """Median processor time of these calls."""
    times = []
    for call in calls:
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return f"{1000 * float(np.median(times)):.3f}"


def hits_and_misses(model: EncDecCTCModel, store: AdapterStore, users: int, calls: int) -> list[str]:
    """Cost of asking for one user: resident, resident and compared with the store, and not resident."""
    bank = AdapterBank(model, store, capacity=min(calls, users), check_seconds=3600.0)
    checking = AdapterBank(model, store, capacity=min(calls, users), check_seconds=0.0)
    chance = np.random.default_rng(0)
    some = [user_id_of(int(user)) for user in chance.permutation(users)[:calls]]

    def ask(bank: AdapterBank, user: str) -> None:
        with bank.route([user]):
            pass

    misses = milliseconds([lambda user=user: ask(bank, user) for user in some])
    hits = milliseconds([lambda user=user: ask(bank, user) for user in some])
    for user in some:
        ask(checking, user)
    checked = milliseconds([lambda user=user: ask(checking, user) for user in some])
    return [hits, checked, misses]


def wrong_rows(model: EncDecCTCModel, bank: AdapterBank, users: list[int], seconds: list[float]) -> int:
    """Rows of a batch that are not served with their user's adapter; notes how long the lookup took."""
    x = torch.zeros(len(users), 2, model.encoder.point_width(0))
    start = time.perf_counter()
    with bank.route([user_id_of(user) for user in users]):
        seconds.append(time.perf_counter() - start)
        routing = active_routing(model.encoder, len(users))
        output = routing.apply(encoder_point(0), x, x)
    expected = torch.tensor([number_of(user) for user in users])[:, None, None]
    return int((output != expected).any(dim=(1, 2)).sum())


def soak(model: EncDecCTCModel, store: AdapterStore, arguments: argparse.Namespace, users: int) -> list[str]:
    """Threads that ask for Zipf-distributed users; one line for each finding."""
    bank = AdapterBank(model, store, capacity=arguments.resident)
    shares = 1 / np.arange(1, users + 1)
    cumulative = np.cumsum(shares / shares.sum())
    peaks = []  # of memory, MB
    started = time.monotonic()

    def work(seed: int) -> tuple[int, list[float], list[float]]:
        chance, one, batch, wrong = np.random.default_rng(seed), [], [], 0
        torch.set_num_threads(1)
        while time.monotonic() < started + arguments.seconds:
            for size, seconds in ((1, one), (BATCH_SIZE, batch)):
                drawn = np.searchsorted(cumulative, chance.random(size)).clip(max=users - 1)
                wrong += wrong_rows(model, bank, drawn.tolist(), seconds)
            if not peaks and time.monotonic() > started + arguments.seconds / 3:
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return wrong, one, batch

    with ThreadPoolExecutor(arguments.threads) as pool:
        results = list(pool.map(work, range(arguments.threads)))
    one, batch = (1000 * np.concatenate([result[i] for result in results]) for i in (1, 2))  # ms
    found = bank.statistics
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        f"{users:,} users in the store, {found.resident:,} of {found.capacity:,} resident, "
        f"{arguments.threads} threads, {arguments.seconds:g} s",
        f"batches {len(one) + len(batch):,}, wrong rows {sum(wrong for wrong, *_ in results)}",
        f"hit rate {100 * found.hit_rate:.1f} %, loads {found.loads:,}, evictions {found.evictions:,}, "
        f"{1000 * found.load_seconds / max(found.loads, 1):.1f} ms per load",
        *(
            f"lookup of {name}: p50 {np.percentile(times, 50):.2f} ms, p99 {np.percentile(times, 99):.2f} ms"
            for name, times in (("one user", one), (f"a batch of {BATCH_SIZE}", batch))
        ),
        f"peak memory {peaks[0]:.0f} MB after a third of the time, {peak:.0f} MB at the end",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[10, 1000, 100_000], help="in the store")
    parser.add_argument("--hidden-dims", type=int, nargs="+", default=[8], help="of the adapters")
    parser.add_argument("--calls", type=int, default=300, help="of each kind")
    parser.add_argument("--resident", type=int, default=1000, help="users in the bank, in the minute")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the minute")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="where to make the store, which is removed afterwards")
    arguments = parser.parse_args()
    logging.setLevel(logging.ERROR)
    torch.set_num_threads(1)
    console = Console(width=100)
    model = build_model()
    table = Table(title=f"ms to ask for one user, median of {arguments.calls}")
    for column in ("users in the store", "resident", "resident, compared with the store", "not resident"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        filler = NumberedFiller(Path(folder) / "store", adapter_of(model, arguments.hidden_dims))
        store = AdapterStore(filler.root)
        filled = 1
        for users in sorted(arguments.users):
            filler.fill(filled, users)
            filled = users
            table.add_row(f"{users:,}", *hits_and_misses(model, store, users, arguments.calls))
        console.print(table)
        if arguments.seconds:
            console.print("\n".join(soak(model, store, arguments, filled)), highlight=False)


if __name__ == "__main__":
    main()
