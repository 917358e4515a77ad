"""Random numbers that depend on a seed alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """In this block, random numbers depend on the seed alone; those after it are what they would be without it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
