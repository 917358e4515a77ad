"""Which base model an adapter was made for: a fingerprint that decides, and a description that explains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from omegaconf import DictConfig, ListConfig, OmegaConf

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.blocks import base_modules
from nemo_ds2_adapters.adapters.parameters import count_parameters
from nemo_ds2_adapters.errors import BaseMismatchError

if TYPE_CHECKING:
    import torch
    from nemo.core import ModelPT
    from torch import Tensor

NO_EFFECT = ("dither", "pad_to")  # preprocessor settings that do not change what the model computes
COUNTERS = ("num_batches_tracked",)  # neither do these buffers
MAX_REASONS = 20  # lines of an error message

_known: WeakKeyDictionary[ModelPT, tuple[Any, str]] = WeakKeyDictionary()


def fingerprint(model: ModelPT) -> str:
    """SHA-256 over the base's weights, preprocessor settings and vocabulary, 64 hexadecimal digits.

    The same before and after adapters are added, trained or removed, on every device, and after saving and
    restoring. It is remembered for each model until its base changes.
    """
    state = _state(model)
    if model not in _known or _known[model][0] != state:
        _known[model] = state, _hash(model)
    return _known[model][1]


def base_tensors(model: ModelPT) -> Iterator[tuple[str, Tensor]]:
    """Name and value of everything in the model's state dict but its adapters."""
    for path, module in base_modules(model):
        tensors = {**module._parameters, **module._buffers}
        for name, tensor in tensors.items():
            if tensor is not None and name not in module._non_persistent_buffers_set and name not in COUNTERS:
                yield f"{path}.{name}", tensor.detach()


def check_base(model: ModelPT, adapter: Adapter, option: str = "strict_base=False") -> None:
    """Refuse an adapter that was made for another base (BaseMismatchError: shows both fingerprints and what differs).

    One that does not say for which it was made passes. `option` is how a caller can leave this check out, for the
    message.
    """
    ours = fingerprint(model)
    if adapter.info is None or adapter.info.fingerprint == ours:
        return
    lines = difference(adapter.info.base, describe_base(model))
    reasons = lines or ["the same settings and vocabulary, but other weights: the base was trained further, or anew"]
    raise BaseMismatchError(
        f"adapter {adapter.name!r} was made for another base model\n"
        f"  fingerprint of its base:  {adapter.info.fingerprint}\n"
        f"  fingerprint of the model: {ours}\n"
        + "".join(f"  {line}\n" for line in reasons[:MAX_REASONS])
        + f"load the base it was made for, or pass {option} if it may serve another"
    )


def describe_base(model: ModelPT) -> dict[str, Any]:
    """The base in plain values, so that a person can be told in what two bases differ."""
    from nemo.core.classes.mixins.adapter_mixins import get_registered_adapter

    sections = {}
    for name in ("encoder", "decoder", "joint"):
        if name in model.cfg and hasattr(model, name):
            cls = type(getattr(model, name))
            registered = get_registered_adapter(cls)
            target = registered.base_class_path if registered else f"{cls.__module__}.{cls.__name__}"
            settings = _plain(model.cfg[name])
            settings.pop("vocabulary", None)
            sections[name] = {**settings, "_target_": target}
    parameters = count_parameters(model)["base"]
    return {
        **sections,
        "preprocessor": _preprocessor(model),
        "vocabulary": _vocabulary(model),
        "parameters": parameters,
    }


def difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """One line per setting in which two descriptions differ; empty if they are equal."""
    lines = []
    one, two = _flat(theirs), _flat(ours)
    for key in sorted(one.keys() | two.keys()):
        if one.get(key) != two.get(key):
            lines.append(f"{key}: {_shorten(one.get(key))} in the file, {_shorten(two.get(key))} in the model")
    return lines


def _hash(model: ModelPT) -> str:
    import torch

    digest = hashlib.sha256()
    settings = {"preprocessor": _preprocessor(model), "vocabulary": _vocabulary(model)}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(base_tensors(model), key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _state(model: ModelPT) -> Any:
    """What changes whenever the base does: cheap to read, compared instead of hashing all weights again.

    Writing into `tensor.data` leaves the version counters alone, so one number of each tensor is read as well.
    """
    import torch

    tensors = [tensor for _, tensor in base_tensors(model)]
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor.reshape(-1)[-1:])
    return (
        [(t.data_ptr(), -1 if t.is_inference() else t._version, t.shape) for t in tensors],
        [torch.cat(lasts).tolist() for lasts in kinds.values()],
        _preprocessor(model),
        _vocabulary(model),
    )


def _preprocessor(model: ModelPT) -> dict[str, Any]:
    settings = _plain(model.cfg.get("preprocessor", OmegaConf.create({})))
    return {key: value for key, value in settings.items() if key not in NO_EFFECT}


def _vocabulary(model: ModelPT) -> list[str]:
    for name in ("joint", "decoder"):
        vocabulary = getattr(getattr(model, name, None), "vocabulary", None)
        if vocabulary is not None:
            plain: Any = OmegaConf.to_container(vocabulary) if isinstance(vocabulary, ListConfig) else vocabulary
            return list(plain)
    return []


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    result = {}
    for key, item in value.items():
        result.update(_flat(item, f"{path}.{key}" if path else key))
    return result


def _shorten(value: Any) -> str:
    if isinstance(value, list) and len(value) > 8:
        return f"{len(value)} entries"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
