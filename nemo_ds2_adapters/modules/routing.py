"""Which adapter serves which row of a batch.

NeMo's typechecks and step functions leave no room for one more argument of `forward`, so a context variable carries
the choice to encoder and decoder. Every thread and every asyncio task has its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import groupby

import torch
from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin
from torch import Tensor

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.layers import Branch, StackedAdapters, Weights

DECODER_FEATURES = "decoder"
DECODER_LOGITS = "decoder, logits"


def encoder_point(number: int) -> str:
    """A point of the encoder: the path of its `AdapterPoint` in a model."""
    return f"encoder.adapter_points.{number}"


@dataclass(frozen=True)
class RoutedRows:
    """Rows of a batch that are served by adapters of one architecture.

    Args:
        rows: which ones, as an index into the batch.
        branches: of that architecture, by point.
        weights: of the rows' users, by point; at each, one set for all of these rows or one for each.
    """

    rows: slice | Tensor
    branches: Mapping[str, Branch]
    weights: Mapping[str, Weights]


def gathers_weights(device: torch.device) -> bool:
    """Whether copying weights for one batched product is cheaper than several products with them where they lie.

    Not on the CPU: there, gathering the weights of a 512-256 adapter for 16 utterances takes a fifth to a third of the
    time of the products, and starting a product takes next to none.
    """
    return device.type != "cpu"


def routed_rows(adapters: StackedAdapters, slots: Sequence[int]) -> list[RoutedRows]:
    """How to serve a batch with adapters of one architecture: weights gathered once for all points, or taken where
    they lie for each run of rows of the same user.

    Args:
        adapters: of all users.
        slots: of each row of the batch; 0 if these adapters do not serve it.
    """
    runs = []
    start = 0
    for slot, group in groupby(slots):
        stop = start + len(list(group))
        if slot:
            runs.append((slice(start, stop), slot))
        start = stop
    device = adapters.numbers.device
    if len(runs) <= 1 or not gathers_weights(device):
        return [RoutedRows(rows, adapters.branches, adapters.weights(slot)) for rows, slot in runs]
    served = [row for row, slot in enumerate(slots) if slot]
    weights = adapters.weights(torch.tensor([slots[row] for row in served], device=device))
    rows = slice(0, len(slots)) if len(served) == len(slots) else torch.tensor(served, device=device)
    return [RoutedRows(rows, adapters.branches, weights)]


class Routing:
    """The adapters of one batch.

    Args:
        modules: encoder and decoder that it is meant for; others are not concerned.
        batch_size: number of rows.
        parts: rows and what serves them, at points as `encoder_point`, `DECODER_FEATURES` and `DECODER_LOGITS` have
            them. The base alone runs where none of them is.
    """

    def __init__(self, modules: Sequence[AdapterModuleMixin], batch_size: int, parts: Sequence[RoutedRows]) -> None:
        self.modules = tuple(modules)
        self.batch_size = batch_size
        self.parts = parts
        self.checked: set[AdapterModuleMixin] = set()  # modules of which it is known that they have none enabled

    def first_point(self, n_layers: int) -> int:
        """The encoder's first point with an adapter; up to there all rows run as the base. The last point if none."""
        points = {point for part in self.parts for point in part.weights}
        return next((number for number in range(n_layers) if encoder_point(number) in points), n_layers)

    def apply(self, point: str, x: Tensor, target: Tensor) -> Tensor:
        """Let each row's adapter at a point act.

        Args:
            point: where.
            x: `[B, T, D]`, what the adapters work on.
            target: `[B, T, D']`, what their output is added to, or replaces.

        Returns:
            `[B, T, D']`; `target` itself if no row has an adapter there.
        """
        parts = [part for part in self.parts if point in part.weights]
        if not parts:
            return target
        if isinstance(parts[0].rows, slice) and parts[0].rows == slice(0, self.batch_size):
            return parts[0].branches[point](x, target, parts[0].weights[point])
        result = target.clone()
        for part in parts:
            branch, rows = part.branches[point], part.rows
            result[rows] = branch(x[rows], target[rows], part.weights[point])
        return result


_active: ContextVar[Routing | None] = ContextVar("routing", default=None)
_open: list[Routing] = []  # of all threads: torch.compile can see that it is empty, but not into a context variable


@contextmanager
def routed(routing: Routing) -> Iterator[None]:
    """Let encoder and decoder serve their batches in this block as `routing` says; an inner block replaces it."""
    _open.append(routing)
    token = _active.set(routing)
    try:
        yield
    finally:
        _active.reset(token)
        _open.remove(routing)


def active_routing(module: AdapterModuleMixin, batch_size: int) -> Routing | None:
    """The routing for this module, None if there is none.

    Args:
        module: encoder or decoder.
        batch_size: of what it was given.

    Raises:
        InputError: the batch has another size, or the module is in training mode or has enabled adapters: it would
            not be clear what is to run.
    """
    routing = _active.get() if _open else None
    if routing is None or not any(module is other for other in routing.modules):
        return None
    if batch_size != routing.batch_size:
        raise InputError(
            f"the batch has {batch_size} utterances, but the routing names adapters for {routing.batch_size}: "
            "give one user, or None, per utterance"
        )
    if module.training:
        raise InputError(f"{type(module).__name__} is in training mode: call model.eval() before a mixed batch")
    if module in routing.checked:
        return routing
    enabled = module.get_enabled_adapters()
    if enabled:
        raise InputError(
            f"adapters are routed row by row, but {', '.join(enabled)} are enabled for all rows: disable them first, "
            "for example with enabled_adapters(model, None)"
        )
    routing.checked.add(module)
    return routing
