"""What it costs to recognise without NeMo, and what smaller weights of the base would bring.

    python benchmarks/onnx_runner.py MANIFEST              # recordings with a speaker in each line; the demo's base

Makes a store with a random adapter of every speaker, and a graph with an adapter per row. Then recognises the manifest
in one process with NeMo and one with onnxruntime each: processor seconds until ready and for the recordings, peak
memory, and how many texts are the same. At last the graph with each kind of weights, and with onnxruntime's dynamic
quantisation (with and without convolutions), in turn: size, errors of the base, time.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kaldialign
import torch
from onnxruntime.quantization import quantize_dynamic
from rich.console import Console
from rich.table import Table
from torch import nn

from nemo_ds2_adapters import AdapterStore, add_adapter, export_onnx
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from nemo_ds2_adapters.recognition.onnx import OnnxRecogniser
from nemo_ds2_adapters.recognition.small_weights import WEIGHTS

NAME = "random"
RUN = """
import json, re, sys, time
base, graph, store, manifest = sys.argv[1:]
{start}
ready = time.process_time()
texts = {run}
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024  # not the parent's
print(json.dumps([ready, time.process_time() - ready, peak, texts]))
"""
WAYS = {
    "NeMo": RUN.format(
        start="from nemo_ds2_adapters import transcribe\n"
        "from nemo_ds2_adapters.formats.nemo_archive import restore_model\n"
        "model = restore_model(base, None)",
        run="transcribe(model, manifest, store=store, progress=False)",
    ),
    "onnxruntime": RUN.format(
        start="from nemo_ds2_adapters.recognition.onnx import OnnxRecogniser\n"
        "recogniser = OnnxRecogniser(graph, store, threads=1)",
        run="recogniser.transcribe(manifest, progress=False)",
    ),
}


def prepare(base: str, lines: list[dict[str, str]], folder: Path) -> None:
    """The store and the graphs."""
    model = restore_model(base, None)
    add_adapter(model, NAME, {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [64]})
    store = AdapterStore(folder / "store")
    for speaker in sorted({line["speaker"] for line in lines}):
        for path, parameter in model.named_parameters():
            if ".adapter_layer." in path and parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.03)
        store.put(speaker, attached_adapter(model, NAME))
    for weights in WEIGHTS:
        export_onnx(model, folder / f"{weights}.onnx", "rows", weights=weights)
    source, products = str(folder / "fp32.onnx"), ["MatMul", "Gemm", "LSTM"]
    quantize_dynamic(source, str(folder / "int8, dynamic, products.onnx"), op_types_to_quantize=products)
    quantize_dynamic(source, str(folder / "int8, dynamic.onnx"))


def smaller(folder: Path, audio: list[str], references: list[str], repetitions: int) -> Table:
    """Size, errors and time of every graph."""
    table = Table("weights", "MB", "word errors, base", "s")
    graphs = {path.stem: OnnxRecogniser(path, threads=1) for path in sorted(folder.glob("*.onnx"))}
    seconds: dict[str, list[float]] = {name: [] for name in graphs}
    texts: dict[str, list[str]] = {}
    for _ in range(repetitions):
        for name, recogniser in graphs.items():
            start = time.process_time()
            texts[name] = [text or "" for text in recogniser.transcribe(audio, progress=False)]
            seconds[name].append(time.process_time() - start)
    for name in graphs:
        pairs = zip(references, texts[name])
        errors = sum(kaldialign.edit_distance(one.split(), other.split())["total"] for one, other in pairs)
        size = (folder / f"{name}.onnx").stat().st_size / 1e6
        table.add_row(name, f"{size:.1f}", str(errors), f"{statistics.median(seconds[name]):.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--base", default="demo/base.nemo")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    lines = [json.loads(line) for line in arguments.manifest.read_text(encoding="utf-8").splitlines()]
    console, table = Console(width=100), Table("", "until ready, s", "recordings, s", "peak MB", "same texts")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(arguments.base, lines, folder)
        expected: list[str] = []
        for way, program in WAYS.items():
            paths = map(str, (arguments.base, folder / "fp32.onnx", folder / "store", arguments.manifest))
            finished = subprocess.run(
                [sys.executable, "-c", program, *paths], stdout=subprocess.PIPE, text=True, check=True
            )
            ready, run, peak, texts = json.loads(finished.stdout.splitlines()[-1])
            expected = expected or texts
            same = sum(map(str.__eq__, texts, expected))
            table.add_row(way, f"{ready:.1f}", f"{run:.2f}", f"{peak:.0f}", f"{same} of {len(texts)}")
        console.print(table)
        audio = [str(arguments.manifest.parent / line["audio_filepath"]) for line in lines]
        console.print(smaller(folder, audio, [line["text"] for line in lines], arguments.repetitions))


if __name__ == "__main__":
    main()
