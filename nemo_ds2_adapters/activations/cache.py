"""Prefix activations of many utterances, in memory and in files."""

import json
import logging
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nemo_ds2_adapters.checks import check_number
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.atomic import sweep, write_atomically
from nemo_ds2_adapters.formats.scratch import ScratchFolder

Key = Mapping[str, Any]  # plain values: everything that the activations depend on
DEFAULT_MEMORY = 2.0  # GB
OWNER_ONLY = 0o600  # activations tell what a person said
logger = logging.getLogger(__name__)
MODES = ("auto", "off", "required")
PRECISIONS = {None: None, "16": torch.float16, "bf16": torch.bfloat16, "32": torch.float32}


class PrefixCache:
    """Tensors by key: in memory up to a limit, in memory-mapped files beyond.

    A file holds one tensor, its whole key and a checksum; it appears under its name when it is complete. Any number
    of processes may share a folder. A file that is damaged or has another key is not used, and written anew.

    Args:
        folder: where files are kept for later runs, made if it is not there. None keeps nothing: what does not fit
            into memory goes to a temporary folder that ends with this object; of a run that is killed, with the next.
        memory: limit in GB (1e9 bytes) of what is held in memory.
        dtype: in which floating-point tensors are kept; None: as they come.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        memory: float = DEFAULT_MEMORY,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.bytes_in_memory = 0
        self._limit = memory * 1e9
        self._dtype = dtype
        self._in_memory: dict[str, Tensor] = {}
        self._checked: set[str] = set()
        self._scratch: ScratchFolder | None = None
        self._keeps = folder is not None
        self._folder: Path | None = None
        if folder is not None:
            self._folder = Path(folder)
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"{folder}: no folder for activations can be made there ({error.strerror})"
                ) from error
            sweep(self._folder)

    def get(self, key: Key) -> Tensor | None:
        """What was put under this key, on the CPU; None if there is nothing."""
        text = self._text(key)
        name = _name(text)
        if name in self._in_memory:
            return self._in_memory[name]
        tensor = self._read(name, text)
        if tensor is not None and self._fits(name, tensor):
            self._remember(name, tensor.clone())
        return tensor

    def __contains__(self, key: Key) -> bool:
        return self.get(key) is not None

    def put(self, key: Key, tensor: Tensor) -> None:
        """Store a copy of a tensor, detached from any graph; an older one of this key is replaced."""
        text = self._text(key)
        # A copy, not a view: that would keep the whole batch it is a part of.
        name, tensor = _name(text), tensor.detach().to("cpu", self._dtype, copy=True).contiguous()
        fits = self._fits(name, tensor)
        if fits:
            self._remember(name, tensor)
        if self._keeps or not fits:
            self._forget(name) if not fits else None
            self._write(name, text, tensor)

    def _text(self, key: Key) -> str:
        return json.dumps({**key, "precision": str(self._dtype)}, sort_keys=True)

    def _fits(self, name: str, tensor: Tensor) -> bool:
        return self.bytes_in_memory - self._size(name) + tensor.nbytes <= self._limit

    def _size(self, name: str) -> int:
        return self._in_memory[name].nbytes if name in self._in_memory else 0

    def _remember(self, name: str, tensor: Tensor) -> None:
        self._forget(name)
        self._in_memory[name] = tensor
        self.bytes_in_memory += tensor.nbytes

    def _forget(self, name: str) -> None:
        self.bytes_in_memory -= self._size(name)
        self._in_memory.pop(name, None)

    def _path(self, name: str) -> Path:
        if self._folder is None:
            self._scratch = ScratchFolder("activations")
            self._folder = self._scratch.path
            logger.info("activations that do not fit into memory lie in %s until this run ends", self._folder)
        return self._folder / f"{name}.safetensors"

    def _write(self, name: str, text: str, tensor: Tensor) -> None:
        metadata = {"key": text, "checksum": _checksum(tensor)}
        content = safetensors.torch.save({"activations": tensor}, metadata)
        try:
            write_atomically(self._path(name), content, OWNER_ONLY)
        except AdapterFileError as error:
            raise InputError(f"activations: {error}") from error
        self._checked.add(name)

    def _read(self, name: str, text: str) -> Tensor | None:
        if self._folder is None:
            return None
        try:
            with safe_open(self._path(name), "pt") as file:
                metadata = file.metadata() or {}
                tensor = file.get_tensor("activations")
        except (FileNotFoundError, SafetensorError):
            return None
        if name not in self._checked:
            if metadata.get("key") != text or metadata.get("checksum") != _checksum(tensor):
                return None
            self._checked.add(name)
        return tensor


def _name(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:40]


def _checksum(tensor: Tensor) -> str:
    return f"{zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data):08x}"


@dataclass(frozen=True)
class CacheSettings:
    """Whether and how activations are kept.

    Raises InputError: a value is not what it must be; names it by its key in conf/asr_adapters/asr_adaptation.yaml.
    """

    mode: str = "auto"  # auto: whenever that is exact; off: never; required: an error if it is not exact
    folder: str | None = None  # for later runs
    memory: float = DEFAULT_MEMORY  # GB; what does not fit goes to files
    precision: str | None = None  # None: the model's, which is exact

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"model.adapter.cache={self.mode}: expected one of {', '.join(MODES)}")
        if self.precision not in PRECISIONS:
            known = ", ".join(name for name in PRECISIONS if name)
            raise InputError(f"model.adapter.cache_precision={self.precision}: expected null or one of {known}")
        check_number("model.adapter.cache_memory", self.memory)

    @classmethod
    def of(cls, adapter: Mapping[str, Any]) -> Self:
        """Of the config's section `model.adapter`, as plain values. Raises InputError: a value is wrong."""
        mode, precision = adapter["cache"], adapter["cache_precision"]
        return cls(
            "off" if mode is False else mode,  # YAML takes a bare `off` for false
            adapter["cache_dir"],
            adapter["cache_memory"],
            None if precision is None else str(precision),
        )

    def open(self) -> PrefixCache:
        """A cache of this kind. Raises InputError: its folder cannot be made."""
        return PrefixCache(self.folder, self.memory, PRECISIONS[self.precision])
