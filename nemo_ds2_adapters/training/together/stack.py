"""Adapters of several users in one batch while they train."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from nemo_ds2_adapters.modules import DeepSpeech2EncoderAdapter

Parts = dict[int, nn.Module]  # one adapter: point of the encoder -> the module there, added to its input


@contextmanager
def stacked(encoder: DeepSpeech2EncoderAdapter, adapters: Sequence[Parts]) -> Iterator[None]:
    """In this block, each adapter runs on its own share of the batch's rows, with one product for all of them.

    Gradients reach each adapter's own parameters, and no other's: they are those it would have alone.

    Args:
        encoder: without any adapter enabled.
        adapters: of one architecture and without dropout. The batch's rows are those of the first one, then those of
            the second, and so on, as many of each.
    """
    handles = [_stack(encoder.adapter_points[str(point)], [a[point] for a in adapters]) for point in adapters[0]]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _stack(block: nn.Module, modules: Sequence[nn.Module]) -> RemovableHandle:
    template = copy.deepcopy(modules[0]).eval()
    names = [name for name, _ in template.named_parameters()]

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        return functional_call(template, dict(zip(names, weights)), (x,))

    def add(block: nn.Module, arguments: tuple[Tensor], output: Tensor) -> Tensor:
        (x,) = arguments
        weights = [torch.stack(same) for same in zip(*(module.parameters() for module in modules))]
        frames = x.reshape(len(modules), -1, x.shape[-1])
        return x + torch.vmap(run)(frames, *weights).reshape(x.shape)

    return block.register_forward_hook(add)
