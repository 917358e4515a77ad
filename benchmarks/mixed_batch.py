"""What it costs to serve a different user in every row of a batch.

    python benchmarks/mixed_batch.py                # 5x512 bidirectional GRU and the demo's sizes, batches of 16, 64
    python benchmarks/mixed_batch.py --sizes demo --batch-sizes 16 --users 4 16

Utterances of 4 s, features to log probabilities; adapters with 64 hidden values after every recurrent layer, which is
the default. In each run all ways are timed in turn, and medians are compared:

    base        no adapter
    one         one adapter enabled for all rows, as NeMo does it
    mixed       this package: the rows' users routed through a bank; with `users` 1, one user in all rows
    products    what the adapters' matrix products alone take: no code that adds these adapters can take less
    per user    NeMo's way to serve several: one batch per user, with set_enabled_adapters before each

Rows are in random order, so that neighbours rarely have the same user.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.utils import logging
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from nemo_ds2_adapters import add_adapter, enabled_adapters
from nemo_ds2_adapters.recognition.bank import AdapterBank

MEL_BANDS = 80
FRAMES = 400  # 4 s in steps of 10 ms
VOCABULARY = [" ", *"abcdefghijklmnopqrstuvwxyz", "'"]
SIZES = {  # options of the encoder
    "large": {"n_layers": 5, "d_model": 512},
    "demo": {"n_layers": 3, "d_model": 256, "conv_channels": [32, 16]},
}
ADAPTER = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [64], "enabled": False}
Way = Callable[[], Tensor]


def build_model(size: str, users: int) -> EncDecCTCModel:
    """A model with random weights and one adapter per user, none enabled."""
    cfg = {
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "features": MEL_BANDS,
        },
        "encoder": {
            "_target_": "nemo_ds2_adapters.modules.DeepSpeech2EncoderAdapter",
            "feat_in": MEL_BANDS,
            **SIZES[size],
        },
        "decoder": {
            "_target_": "nemo_ds2_adapters.modules.DeepSpeech2Decoder",
            "feat_in": None,
            "num_classes": -1,
            "vocabulary": VOCABULARY,
        },
    }
    model = EncDecCTCModel(cfg=OmegaConf.create(cfg)).eval()
    for number in range(users):
        add_adapter(model, f"user_{number}", ADAPTER)
    for name, parameter in model.named_parameters():
        if ".adapter_layer." in name and parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.02)
    return model


def one_batch_per_user(model: EncDecCTCModel, features: Tensor, lengths: Tensor, users: Sequence[str]) -> Tensor:
    """NeMo's way."""
    outputs = [torch.empty(0)] * len(users)
    for user in sorted(set(users)):
        rows = [row for row, other in enumerate(users) if other == user]
        model.set_enabled_adapters(enabled=False)
        model.set_enabled_adapters(user, enabled=True)
        log_probs, *_ = model(processed_signal=features[rows], processed_signal_length=lengths[rows])
        for row, output in zip(rows, log_probs):
            outputs[row] = output
    model.set_enabled_adapters(enabled=False)
    return torch.stack(outputs)


def products_alone(model: EncDecCTCModel, batch_size: int) -> Way:
    """The matrix products of one user's adapter in all rows, and nothing else."""
    frames = FRAMES // model.encoder.subsampling_factor
    inputs = [
        (torch.randn(batch_size * frames, layer.in_features), layer)
        for point in model.encoder.adapter_points.values()
        for layer in point.adapter_layer["user_0"].module
        if isinstance(layer, nn.Linear)
    ]

    def run() -> Tensor:
        return [layer(x) for x, layer in inputs][-1]

    return run


def medians(ways: dict[str, Way], repetitions: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each, in turn so that a change of the machine's load meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions + 1):
        for name, way in ways.items():
            start = clock()
            way()
            times[name].append(clock() - start)
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}  # the first run warms up


def ways_for(model: EncDecCTCModel, bank: AdapterBank, batch_size: int, user_counts: Sequence[int]) -> dict[str, Way]:
    """Every way to serve one batch; checks that they agree."""
    features = torch.randn(batch_size, MEL_BANDS, FRAMES)
    lengths = torch.full((batch_size,), FRAMES)

    def run() -> Tensor:
        return model(processed_signal=features, processed_signal_length=lengths)[0]

    def one() -> Tensor:
        with enabled_adapters(model, "user_0"):
            return run()

    ways: dict[str, Way] = {"base": run, "one": one, "products": products_alone(model, batch_size)}
    for count in user_counts:
        users = [f"user_{row % count}" for row in range(batch_size)]
        random.Random(0).shuffle(users)

        def mixed(users: list[str] = users) -> Tensor:
            with bank.route(users):
                return run()

        torch.testing.assert_close(mixed(), one_batch_per_user(model, features, lengths, users), atol=1e-4, rtol=0)
        ways[f"mixed {count}"] = mixed
    most = users
    ways["per user"] = lambda: one_batch_per_user(model, features, lengths, most)
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--users", type=int, nargs="+", default=[1, 16, 64], help="distinct users in the batch")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="count processor time: for a machine that is busy")
    arguments = parser.parse_args()
    logging.setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    table = Table(title="Time of a batch of 4 s utterances, and ratios")
    for column in (
        "model",
        "batch",
        "base",
        "one/base",
        "products/base",
        "users",
        "mixed/base",
        "mixed/one",
        "per user/mixed",
    ):
        table.add_column(column, justify="right")
    for size in arguments.sizes:
        model = build_model(size, max(arguments.users))
        bank = AdapterBank(model)
        for batch_size in arguments.batch_sizes:
            counts = [count for count in arguments.users if count <= batch_size]
            with torch.inference_mode():
                seconds = medians(ways_for(model, bank, batch_size, counts), arguments.repetitions, clock)
            base, one, products = (seconds[way] for way in ("base", "one", "products"))
            for count in counts:
                mixed = seconds[f"mixed {count}"]
                about = [size, str(batch_size), f"{base:.3f} s", f"{one / base:.3f}", f"{products / base:.3f}"]
                per_user = f"{seconds['per user'] / mixed:.2f}" if count == counts[-1] else ""
                cells = about if count == counts[0] else [""] * len(about)
                table.add_row(*cells, str(count), f"{mixed / base:.3f}", f"{mixed / one:.3f}", per_user)
            table.add_section()
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
