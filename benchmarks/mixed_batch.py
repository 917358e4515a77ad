"""What it costs to serve a different user in every row of a batch.

    python benchmarks/mixed_batch.py                # 5x512 bidirectional GRU, adapter 512-256; then the demo's sizes
    python benchmarks/mixed_batch.py --sizes demo --batch-sizes 16

Utterances of 4 s, features to log probabilities, adapters on the convolutions' output. In each run all ways are timed
in turn, and medians are compared:

    base        no adapter
    one         one adapter enabled for all rows, as NeMo does it
    mixed       this package: the rows' users routed through a bank
    per user    NeMo's way: one batch per user, with set_enabled_adapters before each
    loop        the adapters one after the other on their rows, in one batch of the base

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
SIZES = {  # options of the encoder, hidden sizes of the adapter
    "large": ({"n_layers": 5, "d_model": 512}, [512, 256]),
    "demo": ({"n_layers": 3, "d_model": 256, "conv_channels": [32, 16]}, [64]),
}
Way = Callable[[], Tensor]


def build_model(size: str, users: int) -> EncDecCTCModel:
    """A model with random weights and one adapter per user, none enabled."""
    encoder, hidden_dims = SIZES[size]
    cfg = {
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "features": MEL_BANDS,
        },
        "encoder": {
            "_target_": "nemo_ds2_adapters.modules.DeepSpeech2EncoderAdapter",
            "feat_in": MEL_BANDS,
            **encoder,
        },
        "decoder": {
            "_target_": "nemo_ds2_adapters.modules.DeepSpeech2Decoder",
            "feat_in": None,
            "num_classes": -1,
            "vocabulary": VOCABULARY,
        },
    }
    model = EncDecCTCModel(cfg=OmegaConf.create(cfg)).eval()
    adapter = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": hidden_dims, "layers": "first"}
    for number in range(users):
        add_adapter(model, f"user_{number}", {**adapter, "enabled": False})
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


def loop_over_adapters(model: EncDecCTCModel, features: Tensor, lengths: Tensor, users: Sequence[str]) -> Tensor:
    """The base once, each adapter's own module on its rows."""
    x, encoded_lengths = model.encoder.forward_prefix(features, lengths, point=0)
    adapters = model.encoder.adapter_points["0"].adapter_layer
    adapted = torch.empty_like(x)
    for user in sorted(set(users)):
        rows = torch.tensor([row for row, other in enumerate(users) if other == user])
        own = x[rows]
        adapted[rows] = own + adapters[user](own)
    x = model.encoder.forward_from(adapted, encoded_lengths, point=0)
    return model.decoder(encoder_output=x.transpose(1, 2))


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

    ways: dict[str, Way] = {"base": run, "one": one}
    for count in user_counts:
        users = [f"user_{row % count}" for row in range(batch_size)]
        random.Random(0).shuffle(users)

        def mixed(users: list[str] = users) -> Tensor:
            with bank.route(users):
                return run()

        def per_user(users: list[str] = users) -> Tensor:
            return one_batch_per_user(model, features, lengths, users)

        def loop(users: list[str] = users) -> Tensor:
            return loop_over_adapters(model, features, lengths, users)

        torch.testing.assert_close(mixed(), per_user(), atol=1e-4, rtol=0)
        torch.testing.assert_close(mixed(), loop(), atol=1e-4, rtol=0)
        ways |= {f"mixed {count}": mixed, f"per user {count}": per_user, f"loop {count}": loop}
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--users", type=int, nargs="+", default=[1, 4, 16, 64], help="distinct users in the batch")
    parser.add_argument("--repetitions", type=int, default=5)
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
        "users",
        "mixed",
        "mixed/one",
        "per user/mixed",
        "loop/mixed",
    ):
        table.add_column(column, justify="right")
    for size in arguments.sizes:
        model = build_model(size, max(arguments.users))
        bank = AdapterBank(model)
        for batch_size in arguments.batch_sizes:
            counts = [count for count in arguments.users if count <= batch_size]
            with torch.inference_mode():
                seconds = medians(ways_for(model, bank, batch_size, counts), arguments.repetitions, clock)
            base, one = seconds["base"], seconds["one"]
            for count in counts:
                mixed, per_user, loop = (seconds[f"{way} {count}"] for way in ("mixed", "per user", "loop"))
                ratios = [f"{ratio:.3f}" for ratio in (mixed / one, per_user / mixed, loop / mixed)]
                cells = [size, str(batch_size), f"{base:.3f} s", f"{one / base:.3f}"]
                table.add_row(*(cells if count == counts[0] else [""] * 4), str(count), f"{mixed:.3f} s", *ratios)
            table.add_section()
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
