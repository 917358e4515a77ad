"""What an exported graph says of itself, and which adapters fit it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from nemo_ds2_adapters.adapters.adapter import ADDING, ADDING_STRATEGY, HEAD, Adapter
from nemo_ds2_adapters.errors import AdapterFileError, BaseMismatchError, InputError
from nemo_ds2_adapters.recognition.features import Features

ADAPTERS = ("rows", "bank", "none")
METADATA = "nemo_ds2_adapters"  # the graph's metadata that hold all this, as JSON
MLP, LINEAR = ADDING
DEFAULTS = {  # of what makes adapters of one class differ, besides sizes and places
    MLP: {"activation": "relu", "norm_position": "pre"},
    LINEAR: {"activation": "swish", "norm_position": "pre"},
    HEAD: {"activation": "relu", "mode": "add"},
}

Arrays = Mapping[str, np.ndarray]  # of one user, by name of the graph's input


@dataclass(frozen=True)
class Graph:
    """What a graph was made of.

    Args:
        adapters: where a row's weights come from, see `export_onnx`.
        fingerprint: of the base.
        sample_rate: of recordings, Hz.
        frame_seconds: between output frames.
        features: of the base's preprocessor.
        vocabulary: output units without the blank.
        has_pieces: whether they are SentencePiece's, in which `▁` begins a word.
        parts: of an adapter that fits, by point: the shapes of its weights, 0 where a hidden size stands.
        kind: what the config of such an adapter says, but for sizes and places.
    """

    adapters: str
    fingerprint: str
    sample_rate: int
    frame_seconds: float
    features: Features
    vocabulary: list[str]
    has_pieces: bool = False
    parts: Mapping[str, Mapping[str, list[int]]] = field(default_factory=dict)
    kind: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Values for JSON."""
        return {**asdict(self), "features": self.features.plain()}

    @classmethod
    def of_plain(cls, values: Mapping[str, Any]) -> "Graph":
        """The inverse of `plain`."""
        return cls(**{**values, "features": Features.of_plain(values["features"])})

    @cached_property
    def inputs(self) -> dict[str, list[int]]:
        """Shapes of the inputs for one row's weights, 0 where a hidden size stands."""
        return {f"{point}:{key}": shape for point, part in self.parts.items() for key, shape in part.items()}

    def text(self, frames: np.ndarray) -> str:
        """What the likeliest unit of each frame, `[T]`, says: repetitions and blanks left out."""
        is_new = np.diff(frames, prepend=-1) != 0
        units = [self.vocabulary[unit] for unit in frames[is_new] if unit < len(self.vocabulary)]
        return "".join(units).replace("▁", " ").strip() if self.has_pieces else "".join(units)

    def weights(self, adapter: Adapter, label: str) -> Arrays:
        """A user's weights as the graph takes them, float32.

        Args:
            adapter: with `StoredTensor`s for weights.
            label: whose, for messages.

        Raises:
            BaseMismatchError: the adapter was made for another base.
            AdapterFileError: it is of another architecture, or a number is too large for float32.
        """
        made_for = adapter.info.fingerprint if adapter.info else "unknown"
        if made_for != self.fingerprint:
            raise BaseMismatchError(
                f"{label}: the adapter was made for base {made_for[:12]}..., the graph is of "
                f"{self.fingerprint[:12]}...: export its own base, or train it again on this one"
            )
        kind = kind_of(adapter.config)
        if kind != self.kind:
            raise AdapterFileError(f"{label}: the adapter is {kind}, the graph takes {dict(self.kind)}")
        for point, state in adapter.weights.items():
            if point not in self.parts:
                raise AdapterFileError(f"{label}: the adapter sits in {point}, the graph takes it in {[*self.parts]}")
            if not _fits({key: tuple(value.shape) for key, value in state.items()}, self.parts[point]):
                shapes = {key: list(value.shape) for key, value in state.items()}
                raise AdapterFileError(
                    f"{label}: has {shapes} in {point}, the graph takes {self.parts[point]}, 0: any"
                )
        weights: Any = adapter.weights
        with np.errstate(over="ignore"):
            arrays = {
                f"{p}:{key}": value.array().astype(np.float32) for p in weights for key, value in weights[p].items()
            }
        for name, numbers in arrays.items():
            if not np.isfinite(numbers).all():  # they were, in double precision
                raise AdapterFileError(f"{label}: weight {name} is not finite in float32")
        return arrays

    def stacked(self, users: Iterable[Arrays]) -> dict[str, np.ndarray]:
        """The inputs for several users, `[N, ...]` each: smaller hidden sizes, and points without an adapter, zero."""
        users = list(users)
        result = {}
        for name, shape in self.inputs.items():
            own = [user.get(name) for user in users]
            largest = np.max([shape, *(value.shape for value in own if value is not None)], axis=0)
            result[name] = np.zeros((len(users), *largest), np.float32)
            for row, value in zip(result[name], own):
                if value is not None:
                    row[tuple(map(slice, value.shape))] = value
        return result


def _fits(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, Sequence[int]]) -> bool:
    """Whether weights at a point have these shapes, but for hidden sizes, and follow one another."""
    if shapes.keys() != expected.keys() or any(len(shapes[key]) != len(expected[key]) for key in shapes):
        return False
    linears = [key for key, shape in expected.items() if len(shape) == 2]
    return (
        all(size in (0, own) for key in shapes for size, own in zip(expected[key], shapes[key]))
        and all(shapes[one][0] == shapes[other][1] for one, other in pairwise(linears))
        and all(shapes.get(key.replace("weight", "bias"), shapes[key])[0] == shapes[key][0] for key in linears)
    )


def kind_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes adapters alike, but for sizes and places: class, activation, norm, how the output is merged."""
    target, strategy = config.get("_target_"), config.get("adapter_strategy") or {"_target_": ADDING_STRATEGY}
    kind = {key: config.get(key, default) for key, default in DEFAULTS.get(target, {}).items()}  # type: ignore[arg-type]
    return {"_target_": target, "adapter_strategy": strategy.get("_target_"), **kind}


def check_batch(features: np.ndarray, lengths: np.ndarray, width: int, users: int) -> None:
    """Refuse what is no batch for a graph.

    Raises:
        InputError: says what is wrong with its shapes or lengths.
    """
    if features.ndim != 3 or features.shape[1] != width or features.dtype != np.float32:
        raise InputError(f"features are {features.dtype} {list(features.shape)}: expected float32 [B, {width}, T]")
    if lengths.shape != features.shape[:1] or lengths.dtype != np.int64 or users != len(features):
        raise InputError(
            f"{len(features)} rows of features, lengths {lengths.dtype} {list(lengths.shape)} and {users} users: "
            "expected int64 [B], and one user, or None, per row"
        )
    wrong = [int(length) for length in lengths if not 1 <= length <= features.shape[2]]
    if wrong:
        raise InputError(f"lengths {wrong} do not lie within 1 and the features' {features.shape[2]} frames")
