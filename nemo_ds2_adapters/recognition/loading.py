"""Adapters as a bank stacks them: from a store, or from the model they are attached to."""

from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import Protocol

from nemo.collections.common.parts.adapter_modules import LinearAdapter
from nemo.core import ModelPT
from nemo.core.classes.mixins.adapter_mixin_strategies import (
    ResidualAddAdapterStrategy,
    ReturnResultAdapterStrategy,
)
from torch import nn

from nemo_ds2_adapters.adapters.adapter import Adapter, State, check_finite
from nemo_ds2_adapters.adapters.blocks import adapter_parts, existing_name
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.adapters.fitting import empty_part
from nemo_ds2_adapters.errors import AdapterFileError, BaseMismatchError, InputError, UnknownUserError
from nemo_ds2_adapters.layers import Branch
from nemo_ds2_adapters.modules import DeepSpeech2Decoder, DeepSpeech2EncoderAdapter, MLPAdapter, MLPHeadAdapter
from nemo_ds2_adapters.modules.adapters import DEFAULT_PLACEMENT, placement_points
from nemo_ds2_adapters.modules.routing import DECODER_FEATURES, DECODER_LOGITS, encoder_point
from nemo_ds2_adapters.store.store import AdapterStore
from nemo_ds2_adapters.store.version import Version

NETWORK = "module."  # the attribute in which MLPAdapter, LinearAdapter and MLPHeadAdapter keep their layers
MERGES = {ResidualAddAdapterStrategy: True, ReturnResultAdapterStrategy: False}  # whether the output is added
MAX_KNOWN = 100  # configs whose branches are remembered


Loaded = tuple[Hashable, tuple[Branch, ...], Mapping[str, State]]  # version, architecture, weights by point


class AdapterSource(Protocol):
    """Where a bank gets adapters from."""

    def version(self, key: str) -> Hashable:
        """What changes when the adapter does. Raises InputError: there is none."""

    def load(self, key: str) -> Loaded:
        """The adapter as it is now. Raises InputError or AdapterFileError: it cannot be used."""

    def words(self, key: str) -> tuple[str, ...]:
        """The person's words. Raises AdapterFileError: they are damaged."""


class Architectures:
    """What adapters do, each architecture looked at once."""

    def __init__(self, model: ModelPT) -> None:
        """Args: the model they are for. Raises InputError: it takes no adapters per row."""
        self._widths = _point_widths(model)
        self._n_layers = model.encoder.n_layers
        self._model = model
        self._known: dict[str, tuple[Branch, ...]] = {}

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self._model)

    def branches(self, adapter: Adapter, label: str) -> tuple[Branch, ...]:
        """What the adapter does, in the order of its points.

        Raises:
            BaseMismatchError: it was made for another base.
            AdapterFileError: it does not fit the model, or is of a kind that cannot be mixed.
        """
        if adapter.info is None or adapter.points is None:
            raise AdapterFileError(f"{label}: does not say for which base, and where in it, the adapter was made")
        made_for = adapter.info.fingerprint
        if made_for != self._fingerprint:
            raise BaseMismatchError(
                f"{label}: the adapter was made for base {made_for[:12]}..., the model is "
                f"{self._fingerprint[:12]}...: train it again on this base (store.stale(model) lists all such users)"
            )
        description = repr([adapter.module, adapter.config, *adapter.weights])
        branches = self._known.get(description)
        if branches is None:
            for point in adapter.points:
                if point not in self._widths:
                    raise AdapterFileError(f"{label}: sits in {point}, which the model does not have")
            expected = _placed(adapter, self._n_layers, label)
            if adapter.points != expected:
                raise AdapterFileError(f"{label}: sits in {adapter.points}, by its config it belongs in {expected}")
            modules = {point: empty_part(adapter, in_features=self._widths[point]) for point in adapter.points}
            branches = tuple(_branch(point, module, label) for point, module in modules.items())
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[description] = branches
        for branch, state in zip(branches, adapter.weights.values()):
            if {key.removeprefix(NETWORK): value.shape for key, value in state.items()} != branch.shapes:
                raise AdapterFileError(f"{label}: its weights at {branch.point} have shapes that do not fit the model")
            for key, value in state.items():
                if not value.is_floating_point():
                    raise AdapterFileError(
                        f"{label}: {key} at {branch.point} is {value.dtype}, a weight is no integer"
                    )
        return branches


class StoredAdapters:
    """The adapters of a store, by user id."""

    def __init__(self, architectures: Architectures, store: AdapterStore) -> None:
        """Args: what adapters of the model do, and where they lie."""
        self._architectures = architectures
        self._store = store

    def version(self, key: str) -> Version:
        """The user's current version. Raises UnknownUserError: there is none."""
        versions = self._store.versions(key)
        if not versions:
            raise UnknownUserError(f"{self._store}: there is no adapter of user {key!r}")
        return versions[-1]

    def load(self, key: str) -> Loaded:
        """The user's current version.

        Raises:
            UnknownUserError: there is none.
            BaseMismatchError: it was made for another base.
            AdapterFileError: it is damaged, does not fit the model, or is of a kind that cannot be mixed.
        """
        version, adapter = self._store.read(key)
        return version, self._architectures.branches(adapter, f"{self._store}, user {key!r}"), adapter.weights

    def words(self, key: str) -> tuple[str, ...]:
        """The user's words."""
        return self._store.words(key)


class AttachedAdapters:
    """The adapters that are attached to a model, by name."""

    def __init__(self, model: ModelPT) -> None:
        """Args: the model."""
        self._model = model

    def version(self, key: str) -> Hashable:
        """What changes when the adapter's weights do. Raises AdapterNameError: there is no such adapter."""
        parts = adapter_parts(self._model, existing_name(self._model, key))
        parameters = [parameter for _, part in parts for parameter in part.parameters()]
        return tuple((p.data_ptr(), -1 if p.is_inference() else p._version) for p in parameters)

    def load(self, key: str) -> Loaded:
        """The adapter as it is now.

        Raises:
            AdapterNameError: there is no such adapter.
            AdapterFileError: it is of a kind that cannot be mixed, or a weight is not finite.
        """
        version = self.version(key)
        parts = adapter_parts(self._model, existing_name(self._model, key))
        branches = tuple(_branch(point, module, f"adapter {key!r}") for point, module in parts)
        weights = {point: module.state_dict() for point, module in parts}
        check_finite(key, weights.values())
        return version, branches, weights

    def words(self, key: str) -> tuple[str, ...]:
        """None: a model keeps no words."""
        return ()


def _point_widths(model: ModelPT) -> dict[str, int]:
    """Values per frame at the points of a model."""
    encoder, decoder = getattr(model, "encoder", None), getattr(model, "decoder", None)
    if not isinstance(encoder, DeepSpeech2EncoderAdapter) or not isinstance(decoder, DeepSpeech2Decoder):
        raise InputError(
            f"only DeepSpeech2Encoder and DeepSpeech2Decoder serve a different adapter in each row of a batch, the "
            f"model has {type(encoder).__name__} and {type(decoder).__name__}: if it is a DeepSpeech2, call "
            f"model.replace_adapter_compatible_modules() first"
        )
    widths = {encoder_point(number): encoder.point_width(number) for number in range(encoder.n_layers + 1)}
    return {**widths, DECODER_FEATURES: decoder.output.in_features}


def _placed(adapter: Adapter, n_layers: int, label: str) -> list[str]:
    """The points that an adapter's config names."""
    modules = (adapter.module or "encoder").split("+")
    try:
        numbers = placement_points(adapter.config.get("layers", DEFAULT_PLACEMENT), n_layers)
    except ValueError as error:
        raise AdapterFileError(f"{label}: {error}") from error
    points = [encoder_point(number) for number in numbers] if "encoder" in modules else []
    return points + [DECODER_FEATURES] * ("decoder" in modules)


def _branch(point: str, module: nn.Module, label: str) -> Branch:
    if isinstance(module, MLPHeadAdapter):
        return Branch(DECODER_LOGITS, module.mode == "add", module.module)
    strategy = type(getattr(module, "adapter_strategy", None))
    if not isinstance(module, MLPAdapter | LinearAdapter) or strategy not in MERGES:
        raise AdapterFileError(
            f"{label}: a {type(module).__name__} with {strategy.__name__} cannot be mixed with others in a batch, "
            f"only MLPAdapter, MLPHeadAdapter and LinearAdapter with NeMo's adding or replacing strategy can"
        )
    return Branch(point, MERGES[strategy], module.module)
