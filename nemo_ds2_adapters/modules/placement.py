"""Where in the encoder an adapter sits."""

from collections.abc import Sequence

PLACEMENTS = ("first", "last", "all")
DEFAULT_PLACEMENT = "all"


def placement_points(layers: str | Sequence[int], n_layers: int) -> list[int]:
    """The encoder's points (0 = convolutions' output, i = after recurrent layer i - 1) that `layers` names.

    Args:
        layers: `first`, `last`, `all`, or recurrent layer indices, 0 first.
        n_layers: recurrent layers of the encoder.

    Raises:
        ValueError: an unknown word, an empty or repeating list, or an index that the encoder does not have.
    """
    if layers == "first":
        return [0]
    if layers == "last":
        return [n_layers]
    if layers == "all":
        return list(range(1, n_layers + 1))
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise ValueError(f"layers={layers!r}: expected one of {', '.join(PLACEMENTS)} or a list of layer indices")
    indices = [*layers]
    if not all(isinstance(i, int) and 0 <= i < n_layers for i in indices):
        raise ValueError(f"layers={indices}: expected layer indices from 0 to {n_layers - 1}")
    if not indices or len(set(indices)) < len(indices):
        raise ValueError(f"layers={indices}: expected at least one layer, and each once")
    return sorted(i + 1 for i in indices)
