"""One function per parser: it is given any bytes, and lets nothing through but what the package may raise."""

import io
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from nemo_ds2_adapters.adaptation.fit_settings import FitSettings
from nemo_ds2_adapters.adapters.chosen import chosen_adapter
from nemo_ds2_adapters.cli.scripts.script import check_config, open_overrides
from nemo_ds2_adapters.configs import CONFIGS, shipped_config
from nemo_ds2_adapters.data.manifest import read_lines
from nemo_ds2_adapters.errors import NemoDs2Error
from nemo_ds2_adapters.formats import safetensors_file
from nemo_ds2_adapters.formats.reading import look_into_bytes, read_adapters
from nemo_ds2_adapters.store.store import AdapterStore

RELEASED = Path(__file__).parents[1] / "data" / "v0_1"
USER = "john.doe@example.com"


def adapter_file(data: bytes) -> None:
    """A file as it stands; or after a first byte P the pickle in an archive; or after S a safetensors file."""
    with suppress(NemoDs2Error):
        if data[:1] == b"P":
            look_into_bytes(archived(data[1:]), "fuzz")
        elif data[:1] == b"S":
            safetensors_file.read(data[1:], "fuzz")
        else:
            look_into_bytes(data, "fuzz")


def manifest_line(data: bytes) -> None:
    """A manifest: each line is an utterance, or a problem of that line."""
    path = folder() / "manifest.json"
    path.write_bytes(data)
    with suppress(NemoDs2Error):
        read_lines(path, "fuzz")


def store_folder(data: bytes) -> None:
    """A store in which a file is what it should not be: the name up to a line's end, then what is in it."""
    store = folder() / "store"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(stored(), store)
    name, _, content = data.partition(b"\n")
    where = [store, *sorted(path for path in store.rglob("*") if path.is_dir())]
    there = sorted(path for path in store.rglob("*") if path.is_file())
    kind = name[:1]
    path = there[len(name) % len(there)] if kind == b"=" else where[len(name) % len(where)] / legal(name)
    if not path.is_dir():
        path.write_bytes(content)
    with suppress(NemoDs2Error):
        opened = AdapterStore(store, create=False)
        list(opened.entries(on_error=lambda error: None))
        opened.verify()
        opened.get(USER)


def config_overrides(data: bytes) -> None:
    """What stands on the command line of `ds2-adapters train`, an argument per line."""
    arguments = [line for line in data.decode("utf-8", "replace").split("\n") if line[:1] not in ("", "-")]
    shipped = shipped_config("asr_adapters/asr_adaptation")
    with suppress(SystemExit, HydraException, NemoDs2Error):
        overrides = open_overrides(arguments, shipped)
        with initialize_config_dir(str(CONFIGS / "asr_adapters"), version_base=None):
            cfg = compose("asr_adaptation", overrides)
        check_config(cfg, shipped)
        chosen_adapter(cfg.model.adapter)
        FitSettings.of(plain(cfg), has_validation=False)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (adapter_file, manifest_line, store_folder, config_overrides)
}


def seeds() -> dict[str, list[bytes]]:
    """What each target is given first: right input of every kind."""
    pt = RELEASED / "two_adapters.pt"
    with zipfile.ZipFile(pt) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    adapter = next(iter(read_adapters(pt).values()))
    overrides = (
        "model.adapter.adapter_name=ann\nmodel.adapter.mlp.layers=[0,2]\n~model.optim.sched",
        'model.adapter.user_id="홍길동"\n+model.optim.sched={name: TriStage, init_lr: 1e-6}\ntrainer.max_epochs=3',
        "seed=1\nmodel.nemo_model=${model.pretrained_model}\nmodel.adapter.cache=off\nlog_level=INFO",
    )
    line = b'{"audio_filepath": "%s", "duration": 1.5, "offset": 0.5, "text": "yes", "speaker": "ann"}\n'
    return {
        "adapter_file": [pt.read_bytes(), b"P" + pickled, b"S" + safetensors_file.to_bytes(adapter)],
        "manifest_line": [line % os.fsencode(pt), b'[1]\n{"audio_filepath": 1}\n', line % b"gone.wav"],
        "store_folder": [b"=\n{}", b"==\nPK", b"a.tmp\nx", b"000003-20261124T082206.257456Z-%s.pt\nx" % (b"a" * 64)],
        "config_overrides": [text.encode() for text in overrides],
    }


def archived(pickled: bytes) -> bytes:
    """The pickle in place of the one of a released file, with that file's tensors."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(RELEASED / "two_adapters.pt") as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    return buffer.getvalue()


@cache
def folder() -> Path:
    """Where the targets write, in memory if there is such a place."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))


@cache
def stored() -> Path:
    """A store of one user with two versions."""
    path = folder() / "right"
    adapter = next(iter(read_adapters(RELEASED / "two_adapters.pt").values()))
    for _ in range(2):
        AdapterStore(path).put(USER, adapter)
    return path


def legal(name: bytes) -> str:
    """A file name of these bytes."""
    return re.sub(r"[/\0]", "_", name.decode("utf-8", "replace"))[:80].strip(".") or "x"


def plain(cfg: DictConfig) -> Any:
    """A config as plain values; what refers to another key as it stands, since no command is running."""
    return OmegaConf.to_container(cfg, resolve=False)
