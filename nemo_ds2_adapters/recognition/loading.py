"""Adapters as a bank takes them: from a store, or from the model they are attached to."""

import json
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from nemo.collections.common.parts.adapter_modules import LinearAdapter
from nemo.core import ModelPT
from nemo.core.classes.mixins.adapter_mixin_strategies import (
    ResidualAddAdapterStrategy,
    ReturnResultAdapterStrategy,
)
from torch import Tensor, nn

from nemo_ds2_adapters.adapters.blocks import adapter_parts, existing_name
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.errors import AdapterFileError, BaseMismatchError, InputError, UnknownUserError
from nemo_ds2_adapters.formats.old_names import FileContents, StoredAdapter, empty_stored_part
from nemo_ds2_adapters.modules import DeepSpeech2Decoder, DeepSpeech2EncoderAdapter, MLPAdapter, MLPHeadAdapter
from nemo_ds2_adapters.modules.routing import DECODER_FEATURES, DECODER_LOGITS, encoder_site
from nemo_ds2_adapters.store.store import AdapterStore
from nemo_ds2_adapters.store.version import Version

NETWORK = "module."  # the attribute in which MLPAdapter, LinearAdapter and MLPHeadAdapter keep their layers
MERGES = {ResidualAddAdapterStrategy: True, ReturnResultAdapterStrategy: False}  # whether the output is added
MAX_KNOWN = 100  # architectures whose parts are remembered


@dataclass(frozen=True)
class Part:
    """What an adapter does at one site: a network, whose output is added or takes the place of what is there."""

    site: str
    adds: bool
    network: nn.Sequential

    @cached_property
    def signature(self) -> tuple[str, bool, str]:
        """Equal for parts that differ in nothing but weights and dropout."""
        layers = [repr(layer) for layer in self.network if not isinstance(layer, nn.Dropout)]
        return self.site, self.adds, "\n".join(layers)


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter's parts and the state dicts of their networks."""

    parts: tuple[Part, ...]
    states: list[dict[str, Tensor]]


class AdapterSource(Protocol):
    """Where a bank gets adapters from."""

    def version(self, key: str) -> Hashable:
        """What changes when the adapter does. Raises InputError: there is none."""

    def load(self, key: str) -> tuple[Hashable, LoadedAdapter]:
        """The adapter as it is now, and its version. Raises InputError or AdapterFileError: it cannot be used."""


class StoredAdapters:
    """The adapters of a store, by user id."""

    def __init__(self, model: ModelPT, store: AdapterStore) -> None:
        """Args: the model they are for, and where they lie."""
        self._widths = _site_widths(model)
        self._store = store
        self._fingerprint = fingerprint(model)
        self._known: dict[str, tuple[Part, ...]] = {}

    def version(self, key: str) -> Version:
        """The user's current version.

        Raises:
            UnknownUserError: there is none.
        """
        versions = self._store.versions(key)
        if not versions:
            raise UnknownUserError(f"{self._store}: there is no adapter of user {key!r}")
        return versions[-1]

    def load(self, key: str) -> tuple[Version, LoadedAdapter]:
        """The user's current version.

        Raises:
            UnknownUserError: there is none.
            BaseMismatchError: it was made for another base.
            AdapterFileError: it is damaged, does not fit the model, or is of a kind that cannot be mixed.
        """
        version, contents = self._current(key)
        made_for = contents.info["fingerprint"]
        if made_for != self._fingerprint:
            raise BaseMismatchError(
                f"{self._store}: the adapter of user {key!r} was made for base {made_for[:12]}..., the model is "
                f"{self._fingerprint[:12]}...: train it again on this base (store.stale(model) lists all such users)"
            )
        (adapter,) = contents.adapters.values()
        label = f"{self._store}, user {key!r}"
        description = json.dumps([{**adapter.config, "enabled": True}, adapter.paths], sort_keys=True)
        if description not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[description] = self._parts(adapter, label)
        parts = self._known[description]
        states = [_network_state(state) for state in adapter.states]
        for part, state in zip(parts, states):
            _check_shapes(part, state, label)
        return version, LoadedAdapter(parts, states)

    def _current(self, key: str) -> tuple[Version, FileContents]:
        while True:
            version = self.version(key)
            try:
                return version, self._store.get(key, version.number)
            except UnknownUserError:
                if self.version(key) == version:  # else it was replaced since it was listed
                    raise

    def _parts(self, adapter: StoredAdapter, label: str) -> tuple[Part, ...]:
        if adapter.paths is None:
            raise AdapterFileError(f"{label}: does not say where in the model its parts belong")
        parts = []
        for path in adapter.paths:
            if path not in self._widths:
                raise AdapterFileError(f"{label}: sits in {path}, which the model does not have")
            parts.append(_part(path, empty_stored_part(adapter, in_features=self._widths[path]), label))
        return tuple(parts)


class AttachedAdapters:
    """The adapters that are attached to a model, by name."""

    def __init__(self, model: ModelPT) -> None:
        """Args: the model."""
        _site_widths(model)
        self._model = model

    def version(self, key: str) -> Hashable:
        """What changes when the adapter's weights do.

        Raises:
            AdapterNameError: there is no such adapter.
        """
        parts = adapter_parts(self._model, existing_name(self._model, key))
        parameters = [parameter for _, part in parts for parameter in part.parameters()]
        return tuple((p.data_ptr(), -1 if p.is_inference() else p._version) for p in parameters)

    def load(self, key: str) -> tuple[Hashable, LoadedAdapter]:
        """The adapter as it is now.

        Raises:
            AdapterNameError: there is no such adapter.
            AdapterFileError: it is of a kind that cannot be mixed.
        """
        version = self.version(key)
        found = adapter_parts(self._model, existing_name(self._model, key))
        parts = tuple(_part(path, module, f"adapter {key!r}") for path, module in found)
        return version, LoadedAdapter(parts, [_network_state(module.state_dict()) for _, module in found])


def adapter_source(model: ModelPT, store: AdapterStore | None) -> StoredAdapters | AttachedAdapters:
    """Adapters by user id from a store, or by name from the model itself.

    Raises:
        InputError: the model is no DeepSpeech2 that takes adapters.
    """
    return AttachedAdapters(model) if store is None else StoredAdapters(model, store)


def _site_widths(model: ModelPT) -> dict[str, int]:
    """Values per frame, by path of the module that holds the adapters there."""
    encoder, decoder = getattr(model, "encoder", None), getattr(model, "decoder", None)
    if not isinstance(encoder, DeepSpeech2EncoderAdapter) or not isinstance(decoder, DeepSpeech2Decoder):
        raise InputError(
            f"only DeepSpeech2Encoder and DeepSpeech2Decoder serve a different adapter in each row of a batch, the "
            f"model has {type(encoder).__name__} and {type(decoder).__name__}: if it is a DeepSpeech2, call "
            f"model.replace_adapter_compatible_modules() first"
        )
    widths = {encoder_site(point): encoder.point_width(point) for point in range(encoder.n_layers + 1)}
    return {**widths, DECODER_FEATURES: decoder.output.in_features}


def _part(path: str, module: nn.Module, label: str) -> Part:
    if isinstance(module, MLPHeadAdapter):
        return Part(DECODER_LOGITS, module.mode == "add", module.module)
    strategy = type(getattr(module, "adapter_strategy", None))
    if not isinstance(module, MLPAdapter | LinearAdapter) or strategy not in MERGES:
        raise AdapterFileError(
            f"{label}: a {type(module).__name__} with {strategy.__name__} cannot be mixed with others in a batch, "
            f"only MLPAdapter, MLPHeadAdapter and LinearAdapter with NeMo's adding or replacing strategy can"
        )
    return Part(path, MERGES[strategy], module.module)


def _network_state(state: dict[str, Any]) -> dict[str, Tensor]:
    return {key.removeprefix(NETWORK): value for key, value in state.items()}


def _check_shapes(part: Part, state: dict[str, Tensor], label: str) -> None:
    expected = {key: value.shape for key, value in part.network.state_dict().items()}
    found = {key: value.shape for key, value in state.items()}
    if found != expected:
        raise AdapterFileError(f"{label}: its weights at {part.site} have shapes that do not fit the model")
