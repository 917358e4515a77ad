"""Prefix activations of many utterances, in memory and in files."""

import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nemo_ds2_adapters.errors import InputError

Key = Mapping[str, Any]  # plain values: everything that the activations depend on

DEFAULT_MEMORY = 2.0  # GB
OWNER_ONLY = 0o600  # activations tell what a person said


class PrefixCache:
    """Tensors by key: in memory up to a limit, in memory-mapped files beyond.

    A file holds one tensor, its whole key and a checksum; it appears under its name when it is complete. Any number
    of processes may share a folder. A file that is damaged or has another key is not used, and written anew.

    Args:
        folder: where files are kept for later runs, made if it is not there. None keeps nothing: what does not fit
            into memory goes to a temporary folder that ends with this object.
        memory: limit in GB (1e9 bytes) of what is held in memory.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, memory: float = DEFAULT_MEMORY) -> None:
        self.bytes_in_memory = 0
        self._limit = memory * 1e9
        self._in_memory: dict[str, Tensor] = {}
        self._checked: set[str] = set()
        self._keeps = folder is not None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._folder: Path | None = None
        if folder is not None:
            self._folder = Path(folder)
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"{folder}: no folder for activations can be made there ({error.strerror})"
                ) from error

    def get(self, key: Key) -> Tensor | None:
        """What was put under this key, on the CPU; None if there is nothing."""
        name = _name(key)
        if name in self._in_memory:
            return self._in_memory[name]
        tensor = self._read(name, key)
        if tensor is not None and self._fits(tensor):
            self._remember(name, tensor.clone())
        return tensor

    def __contains__(self, key: Key) -> bool:
        return self.get(key) is not None

    def put(self, key: Key, tensor: Tensor) -> None:
        """Store a tensor, detached from any graph; an older one of this key is replaced."""
        name, tensor = _name(key), tensor.detach().to("cpu").contiguous()
        fits = self._fits(tensor)
        if fits:
            self._remember(name, tensor)
        if self._keeps or not fits:
            self._write(name, key, tensor)

    def _fits(self, tensor: Tensor) -> bool:
        return self.bytes_in_memory + tensor.nbytes <= self._limit

    def _remember(self, name: str, tensor: Tensor) -> None:
        self._in_memory[name] = tensor
        self.bytes_in_memory += tensor.nbytes

    def _path(self, name: str) -> Path:
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="activations-")
            self._folder = Path(self._temporary.name)
        return self._folder / f"{name}.safetensors"

    def _write(self, name: str, key: Key, tensor: Tensor) -> None:
        metadata = {"key": _text(key), "checksum": _checksum(tensor)}
        content = safetensors.torch.save({"activations": tensor}, metadata)
        path = self._path(name)
        # No fsync: after a power failure a file may be damaged, which its checksum shows.
        temporary = path.with_name(f".{uuid4().hex}.tmp")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "wb") as file:
            file.write(content)
        os.replace(temporary, path)
        self._checked.add(name)

    def _read(self, name: str, key: Key) -> Tensor | None:
        if self._folder is None:
            return None
        try:
            with safe_open(self._path(name), "pt") as file:
                metadata = file.metadata() or {}
                tensor = file.get_tensor("activations")
        except (FileNotFoundError, SafetensorError):
            return None
        if name not in self._checked:
            if metadata.get("key") != _text(key) or metadata.get("checksum") != _checksum(tensor):
                return None
            self._checked.add(name)
        return tensor


def _text(key: Key) -> str:
    return json.dumps(key, sort_keys=True)


def _name(key: Key) -> str:
    return sha256(_text(key).encode()).hexdigest()[:40]


def _checksum(tensor: Tensor) -> str:
    return f"{zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data):08x}"
