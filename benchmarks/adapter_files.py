"""What handling adapters costs: reading, checking and attaching a file; enabling and running with many attached.

    python benchmarks/adapter_files.py

Prints the best of several rounds, on one thread, as processor time: other work on the machine does not count.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.utils import logging
from omegaconf import OmegaConf
from rich import print
from rich.progress import track
from rich.table import Table

from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.adapters.enabling import enable_adapters
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.adapters.lifecycle import delete_adapter
from nemo_ds2_adapters.formats.file import load_adapter, save_adapter
from nemo_ds2_adapters.formats.reading import inspect_adapter, read_adapters
from nemo_ds2_adapters.modules import MLPAdapterConfig

ATTACHED = (1, 10, 100, 1000)
LABELS = [" ", *"abcdefghijklmnopqrstuvwxyz", "'"]


def build_model() -> EncDecCTCModel:
    """A DeepSpeech2 with 3x256 bidirectional GRU, 640 values per frame after the convolutions."""
    cfg = {
        "sample_rate": 16000,
        "labels": LABELS,
        "preprocessor": {"_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor", "features": 80},
        "encoder": {
            "_target_": "nemo_ds2_adapters.modules.DeepSpeech2EncoderAdapter",
            "feat_in": 80,
            "n_layers": 3,
            "d_model": 256,
        },
        "decoder": {
            "_target_": "nemo_ds2_adapters.modules.DeepSpeech2Decoder",
            "feat_in": None,
            "num_classes": -1,
            "vocabulary": LABELS,
        },
        "decoding": {"strategy": "greedy_batch"},
    }
    return EncDecCTCModel(cfg=OmegaConf.create(cfg)).eval()


def milliseconds(task: Callable[[], object], rounds: int = 20, after: Callable[[], object] = lambda: None) -> float:
    """The best of several runs of a task; `after` is not counted."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        task()
        best = min(best, time.process_time() - start)
        after()
    return best * 1000


def measure_file(model: EncDecCTCModel, path: Path) -> None:
    """Write, read and attach one file of a million parameters."""
    add_adapter(model, "user", MLPAdapterConfig(hidden_dims=[800], layers="first"))
    parameters = sum(p.numel() for n, p in model.named_parameters() if ".adapter_layer." in n)
    fingerprint(model)
    write = milliseconds(lambda: save_adapter(model, "user", path))
    delete_adapter(model, "user")
    table = Table("one file", "milliseconds", title=f"{parameters:,} parameters, {path.stat().st_size:,} bytes")
    table.add_row("write, fsync, rename", f"{write:.1f}")
    table.add_row("read and check", f"{milliseconds(lambda: inspect_adapter(path)):.1f}")
    read = milliseconds(lambda: load_adapter(model, path), after=lambda: delete_adapter(model, "user"))
    table.add_row("read, check and attach, fingerprint known", f"{read:.1f}")
    torch_load = milliseconds(lambda: torch.load(path, weights_only=True))
    table.add_row("(torch.load alone)", f"{torch_load:.1f}")
    (adapter,) = read_adapters(path).values()
    assert adapter.info
    print(table, f"fingerprint of the base: {adapter.info.fingerprint[:12]}...")


def measure_many(model: EncDecCTCModel) -> None:
    """Enable one adapter, and run the encoder with it, as more and more are attached."""
    features, lengths = torch.randn(1, 80, 100), torch.tensor([100])  # one second
    encoder_times = []
    table = Table("attached", "enable one", "NeMo: enable one", "encoder, one enabled", "attach one more")
    table.title = "milliseconds"
    for count in track(ATTACHED, "attaching"):
        first = len(list_adapters(model))
        attach = []
        for i in range(first, count):
            start = time.process_time()
            add_adapter(model, f"user_{i}", MLPAdapterConfig(hidden_dims=[8]))
            attach.append(time.process_time() - start)
        names = [f"user_{i}" for i in range(count)]
        enable_adapters(model, None)
        turns = iter(names * 50)
        enable = milliseconds(lambda turns=turns: enable_adapters(model, next(turns)), 50)
        nemo = milliseconds(lambda: model.set_enabled_adapters("user_0", True), 3)
        enable_adapters(model, "user_0")
        with torch.no_grad():
            encode = milliseconds(lambda: model.encoder(audio_signal=features, length=lengths), 30)
        encoder_times.append(encode)
        table.add_row(str(count), f"{enable:.3f}", f"{nemo:.3f}", f"{encode:.2f}", f"{min(attach) * 1000:.1f}")
    print(table)
    print(f"encoder, {ATTACHED[-1]} attached / {ATTACHED[0]} attached: {encoder_times[-1] / encoder_times[0]:.2f}")


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    logging.setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        measure_file(build_model(), Path(folder) / "adapter.pt")
    measure_many(build_model())


if __name__ == "__main__":
    main()
