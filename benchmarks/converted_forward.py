"""The forward pass of a converted model beside a straightforward implementation of the same network.

    python benchmarks/converted_forward.py

The straightforward one is plain PyTorch as a person would write it from the paper: after every module of the
convolutions a loop over the utterances that marks what lies beyond each one's length, `nn.BatchNorm`, one packed
sequence per recurrent layer. Its weights are saved as a checkpoint of deepspeech.pytorch (directions summed) or of
KoSpeech (concatenated, batch norm and ReLU before each layer), converted, and both models get the same batch of 16
utterances of unequal lengths. Outputs must agree within 1e-4 on real frames; the medians of runs in turn are compared.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from nemo.utils import logging
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nemo_ds2_adapters import convert_checkpoint

CLASSES = 29  # with the blank
BINS = 161  # of a 20 ms window at 16 kHz
FRAMES = 400  # 4 s in steps of 10 ms
BATCH_SIZE = 16
TOLERANCE = 1e-4
TOOLKITS = ("deepspeech.pytorch", "kospeech")


class Straightforward(nn.Module):
    """DeepSpeech2 with the weights' names of `toolkit`, without anything to make it fast."""

    def __init__(self, toolkit: str, n_layers: int, hidden: int) -> None:
        super().__init__()
        self.sums = toolkit == "deepspeech.pytorch"
        stack = nn.Sequential()
        for channels, kernel, stride in ((1, (41, 11), (2, 2)), (32, (21, 11), (2, 1))):
            padding = (kernel[0] // 2, kernel[1] // 2)
            stack.append(nn.Conv2d(channels, 32, kernel, stride, padding, bias=self.sums))
            stack.extend([nn.BatchNorm2d(32), nn.Hardtanh(0, 20)])
        width = 32 * 41
        layers = nn.ModuleList()
        for i in range(n_layers):
            layer = nn.ModuleDict({"rnn": nn.GRU(width, hidden, bidirectional=True, batch_first=True)})
            if self.sums and i:
                layer["batch_norm"] = nn.ModuleDict({"module": nn.BatchNorm1d(width)})
            elif not self.sums:
                layer["batch_norm"] = nn.BatchNorm1d(width)
            layers.append(layer)
            width = hidden if self.sums else 2 * hidden
        output = nn.Linear(width, CLASSES, bias=False)
        if self.sums:
            self.conv = nn.ModuleDict({"seq_module": stack})
            self.rnns = layers
            self.fc = nn.Sequential(nn.ModuleDict({"module": nn.Sequential(nn.BatchNorm1d(width), output)}))
        else:
            self.conv = nn.ModuleDict({"conv": nn.ModuleDict({"sequential": stack})})
            self.rnn_layers = layers
            self.fc = nn.Sequential(nn.LayerNorm(width), nn.ModuleDict({"linear": output}))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """`[B, D, T]` and `[B]` frames -> log probabilities `[B, T', classes]`."""
        x = features.unsqueeze(1)
        lengths = (lengths + 1) // 2
        for module in self.conv["seq_module"] if self.sums else self.conv["conv"]["sequential"]:
            x = module(x)
            mask = torch.zeros(x.shape, dtype=torch.bool)
            for row, length in enumerate(lengths):
                mask[row, :, :, length.item() :] = True
            x = x.masked_fill(mask, 0)
        x = x.flatten(1, 2).transpose(1, 2)
        for layer in self.rnns if self.sums else self.rnn_layers:
            if "batch_norm" in layer:
                norm = layer["batch_norm"]["module"] if self.sums else layer["batch_norm"]
                x = norm(x.flatten(0, 1)).view_as(x)
                x = x if self.sums else x.relu()
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            x, _ = pad_packed_sequence(layer["rnn"](packed)[0], batch_first=True)
            x = x.unflatten(-1, (2, -1)).sum(-2) if self.sums else x
        if self.sums:
            norm, output = self.fc[0]["module"]
            return output(norm(x.flatten(0, 1)).view_as(x)).log_softmax(-1)
        return self.fc[1]["linear"](self.fc[0](x)).log_softmax(-1)


def compare(toolkit: str, arguments: argparse.Namespace) -> tuple[float, float, float]:
    """Median seconds of the straightforward and the converted model, and how far apart their outputs are."""
    plain = Straightforward(toolkit, arguments.n_layers, arguments.d_model).eval()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):  # as if trained
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(plain.state_dict(), Path(folder) / "checkpoint.pt")
        labels = ["_", *map(chr, range(ord("a"), ord("a") + CLASSES - 1))]
        size = {} if toolkit == "deepspeech.pytorch" else {"input_dim": BINS}
        converted = convert_checkpoint(
            Path(folder) / "checkpoint.pt", Path(folder) / "model.nemo", labels=labels, blank_index=CLASSES - 1, **size
        )
    lengths = torch.linspace(0.4 * FRAMES, 1.6 * FRAMES, BATCH_SIZE).round().long()[torch.randperm(BATCH_SIZE)]
    features = torch.randn(BATCH_SIZE, BINS, int(lengths.max()))
    features *= torch.arange(features.shape[-1]) < lengths[:, None, None]
    runs = (
        lambda: plain(features, lengths),
        lambda: converted(processed_signal=features, processed_signal_length=lengths)[0],
    )
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    times: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        expected, found = (run() for run in runs)  # which warms up, too
        for _ in range(arguments.repetitions):
            for run, seconds in zip(runs, times, strict=True):
                start = clock()
                run()
                seconds.append(clock() - start)
    real = torch.arange(expected.shape[1]) < (lengths.unsqueeze(1) + 1) // 2
    difference = float((expected - found)[real].abs().max())
    if difference > TOLERANCE:
        raise SystemExit(f"{toolkit}: outputs differ by {difference}")
    return statistics.median(times[0]), statistics.median(times[1]), difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--n-layers", type=int, default=5)
    parser.add_argument("--d-model", type=int, default=512)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="count processor time: for a machine that is busy")
    arguments = parser.parse_args()
    logging.setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    title = f"{arguments.n_layers}x{arguments.d_model} bidirectional GRU, {BATCH_SIZE} utterances, seconds per forward"
    table = Table(title=title, title_justify="left")
    for column in ("checkpoint of", "straightforward", "converted", "ratio", "largest difference"):
        table.add_column(column, justify="left" if column == "checkpoint of" else "right")
    for toolkit in TOOLKITS:
        plain, converted, difference = compare(toolkit, arguments)
        table.add_row(toolkit, f"{plain:.3f}", f"{converted:.3f}", f"{converted / plain:.2f}", f"{difference:.1e}")
    Console().print(table)


if __name__ == "__main__":
    main()
