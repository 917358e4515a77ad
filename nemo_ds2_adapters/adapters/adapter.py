"""An adapter as a value: what files hold, stores keep, training starts from and returns.

Nobody attaches an adapter to a model to read, write, average, copy or rename it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from nemo_ds2_adapters.adapters.names import check_adapter_name, check_reloadable
from nemo_ds2_adapters.adapters.stored import StoredTensor
from nemo_ds2_adapters.errors import AdapterFileError, InputError

if TYPE_CHECKING:  # torch takes seconds to import, which many a command can do without
    from torch import Tensor

State: TypeAlias = "Mapping[str, Tensor]"
LAYER = re.compile(r"module\.(\d+)\.")  # where MLPAdapter, MLPHeadAdapter and NeMo's LinearAdapter keep their layers
HEAD = "nemo_ds2_adapters.modules.MLPHeadAdapter"
ADDING = ("nemo_ds2_adapters.modules.MLPAdapter", "nemo.collections.common.parts.adapter_modules.LinearAdapter")
ADDING_STRATEGY = "nemo.core.classes.mixins.adapter_mixin_strategies.ResidualAddAdapterStrategy"


@dataclass(frozen=True)
class Info:
    """What an adapter says about itself."""

    fingerprint: str  # of the base it was made for, see `adapters.fingerprint`
    base: Mapping[str, Any]  # that base in plain values, to explain a difference
    created: str  # ISO 8601, UTC
    versions: Mapping[str, str]  # of nemo_ds2_adapters, nemo_toolkit and torch
    metadata: Mapping[str, Any] = field(default_factory=dict)  # plain values: user id, seconds of speech, ...


@dataclass(frozen=True, eq=False)
class Adapter:
    """A named adapter. Two are equal if their names, architectures and weights are, whatever they say of themselves.

    Args:
        name: without module prefix.
        config: plain values that build its modules, `_target_` among them.
        weights: by point, the state dict of the module there; of files, `StoredTensor`s until `loaded` makes them
            tensors, all or none. A point is the path of a block in the model,
            `encoder.adapter_points.0`; formats that do not say where an adapter sits number them, `0`, `1`, ...
        module: NeMo's prefix of the module it belongs to: `encoder`, `decoder`, `encoder+decoder`, '' for the default.
        info: None if it comes from a format that says nothing.
    """

    name: str
    config: Mapping[str, Any]
    weights: Mapping[str, State]
    module: str = ""
    info: Info | None = None

    @property
    def full_name(self) -> str:
        """As NeMo takes it: `decoder:user_john`."""
        return f"{self.module}:{self.name}" if self.module else self.name

    @property
    def parameters(self) -> int:
        """Numbers in its floating-point tensors."""
        return sum(value.numel() for value in self._tensors() if value.is_floating_point())

    @property
    def points(self) -> list[str] | None:
        """Paths of the blocks it sits in, None if its format did not say."""
        return None if all(point.isdecimal() for point in self.weights) else list(self.weights)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Of its info; empty without one."""
        return self.info.metadata if self.info else {}

    @property
    def architecture(self) -> dict[str, Any]:
        """Equal for adapters that differ in nothing but name, weights, and whether they are enabled."""
        return {"module": self.module, **self.config, "enabled": None, "shapes": dict(zip(self.weights, self.shapes))}

    @property
    def shapes(self) -> list[dict[str, list[int]]]:
        """Of the weights at each point."""
        return [{key: list(value.shape) for key, value in state.items()} for state in self.weights.values()]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Adapter):
            return NotImplemented
        alike = self.name == other.name and self.architecture == other.architecture
        return alike and all(a.dtype == b.dtype and a.equal(b) for a, b in zip(self._tensors(), other._tensors()))

    __hash__ = None  # type: ignore[assignment]  # tensors may be compared, not looked up

    def _tensors(self) -> list[Tensor]:
        return [state[key] for _, state in sorted(self.weights.items()) for key in sorted(state)]


def renamed(adapter: Adapter, name: str, taken: Sequence[str] = ()) -> Adapter:
    """The adapter under another name. Raises AdapterNameError: the name is not legal, or taken."""
    check_adapter_name(name, taken)
    check_reloadable(name, {key for state in adapter.weights.values() for key in state})
    return replace(adapter, name=name)


def loaded(adapter: Adapter) -> Adapter:
    """The adapter with tensors for weights, to compute with, if it is one of a file."""

    def tensor(weight: Any) -> Any:
        return weight.tensor() if isinstance(weight, StoredTensor) else weight

    weights = {point: {key: tensor(value) for key, value in state.items()} for point, state in adapter.weights.items()}
    return replace(adapter, weights=weights)


def with_metadata(adapter: Adapter, metadata: Mapping[str, Any]) -> Adapter:
    """The adapter with these metadata in place of its own. Raises InputError: it comes from a format that has none."""
    if adapter.info is None:
        raise InputError(f"adapter {adapter.name!r} comes from a format without metadata: attach it to its base first")
    return replace(adapter, info=replace(adapter.info, metadata=dict(metadata)))


def mean(adapters: Sequence[Adapter], weights: Sequence[float] | None = None) -> Adapter:
    """The weighted mean of adapters of one architecture and one base: the first one, but for its weights.

    Args:
        adapters: at least one.
        weights: one per adapter, at least 0, any scale; None weighs them equally.

    Raises:
        InputError: no adapters, unsuitable weights, or adapters that differ in architecture or base.
    """
    return combination(adapters, _shares(adapters, weights))


def combination(adapters: Sequence[Adapter], shares: Sequence[float]) -> Adapter:
    """The sum of so much of each, of any sign; everything but the weights is the first one's.

    Raises InputError: adapters that differ in architecture or base.
    """
    first = adapters[0]
    for other in adapters[1:]:
        check_alike(first, other)
    combined = {
        point: {key: _weighted_sum([adapter.weights[point][key] for adapter in adapters], shares) for key in state}
        for point, state in first.weights.items()
    }
    return replace(first, weights=combined)


def towards(adapter: Adapter, other: Adapter, t: float) -> Adapter:
    """The adapter moved straight to another one: itself at `t` 0, the other one at 1. Raises what `mean` does."""
    if not 0.0 <= t <= 1.0:
        raise InputError(f"t={t}: expected 0 (the first adapter) to 1 (the second one)")
    return mean([adapter, other], [1.0 - t, t])


def zero(adapter: Adapter) -> Adapter:
    """An adapter of this architecture that changes nothing, the base: its last layer is zero, as before training.

    Raises InputError if there is none: its output takes the place of the base's, or nobody knows its type.
    """
    if not is_additive(adapter):
        raise InputError(
            f"adapter {adapter.name!r}, a {adapter.config.get('_target_')}, is not known to add to what the base "
            f"computes: it cannot be the base"
        )
    return replace(adapter, weights={point: _without_last_layer(state) for point, state in adapter.weights.items()})


def is_additive(adapter: Adapter) -> bool:
    """Whether its output is added to what the base computes, so that it changes nothing if its last layer is zero."""
    strategy = adapter.config.get("adapter_strategy")
    if adapter.config.get("_target_") == HEAD:
        return adapter.config.get("mode", "add") == "add"
    adds = strategy is None or (isinstance(strategy, Mapping) and strategy.get("_target_") == ADDING_STRATEGY)
    return adds and adapter.config.get("_target_") in ADDING


def _without_last_layer(state: State) -> State:
    numbers = {key: int(match.group(1)) for key in state if (match := LAYER.match(key))}
    last = max(numbers.values(), default=None)
    return {key: value.new_zeros(value.shape) if numbers.get(key) == last else value for key, value in state.items()}


def check_alike(first: Adapter, other: Adapter) -> None:
    """Refuse (InputError) to compute with adapters whose weights do not mean the same; says in what they differ."""
    one, two = first.architecture, other.architecture
    for key in one | two:
        if one.get(key) != two.get(key):
            raise InputError(
                f"adapters {first.name!r} and {other.name!r} cannot be averaged, they differ in {key}: "
                f"{one.get(key)!r} and {two.get(key)!r}"
            )
    if first.info and other.info and first.info.fingerprint != other.info.fingerprint:
        raise InputError(f"adapters {first.name!r} and {other.name!r} were made for different base models")


def is_finite(adapter: Adapter) -> bool:
    """Whether all its weights are numbers."""
    tensors = (value for state in adapter.weights.values() for value in state.values())
    return all(map(_is_finite, tensors))


def check_finite(name: str, states: Iterable[State]) -> None:
    """Refuse weights that are not numbers. Raises AdapterFileError: names the first such weight."""
    for state in states:
        for key, value in state.items():
            if not _is_finite(value):
                raise AdapterFileError(f"weight {key} of adapter {name!r} is not finite (NaN or infinity)")


def _is_finite(value: Tensor | StoredTensor) -> bool:
    if isinstance(value, StoredTensor):
        return value.is_finite()
    if not value.is_floating_point() or not value.numel():
        return True
    import torch

    low, high = torch.aminmax(value)  # both NaN if any value is
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _shares(adapters: Sequence[Adapter], weights: Sequence[float] | None) -> list[float]:
    if not adapters:
        raise InputError("no adapters to average: name at least one")
    if weights is None:
        return [1 / len(adapters)] * len(adapters)
    if len(weights) != len(adapters):
        raise InputError(f"{len(adapters)} adapters and {len(weights)} weights: give one weight per adapter")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights):
        raise InputError(f"weights={list(weights)}: expected finite numbers of at least 0, not all 0")
    return [weight / sum(weights) for weight in weights]


def _weighted_sum(values: Sequence[Any], shares: Sequence[float]) -> Any:
    """In double precision; of a counter such as batch norm's, which has no mean, the first one's value."""
    first = values[0]
    if not first.is_floating_point() or len(values) == 1:
        return first
    if isinstance(first, StoredTensor):
        total = sum(value.array().astype("float64") * share for value, share in zip(values, shares))
        return StoredTensor.of_array(total, first.dtype)
    import torch

    return torch.stack([value.double() * share for value, share in zip(values, shares)]).sum(0).to(values[0].dtype)
