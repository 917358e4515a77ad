"""Weights under the original's names into a model, none left out and none left over."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nemo_ds2_adapters.errors import InputError

COUNTER = "num_batches_tracked"  # of batch norms, which torch before 0.4.1 did not have; of no use here


def load_weights(
    model: nn.Module, weights: Mapping[str, Tensor], modules: Mapping[str, str], class_order: Sequence[int]
) -> None:
    """Load `model.encoder` and `model.decoder`.

    Args:
        model: ours.
        weights: by the original's names.
        modules: the original's name of a module -> ours.
        class_order: which row of the original's output layer each class is.

    Raises:
        InputError: lists all weights that are missing, unexpected, or of another shape. Nothing was loaded.
    """
    original = {ours: theirs for theirs, ours in modules.items()}
    targets = {
        _renamed(key, original): value
        for key, value in model.state_dict(keep_vars=True).items()
        if key.startswith(("encoder.", "decoder."))
    }
    optional = {key for key in targets if key.endswith(COUNTER)}
    problems = {
        "missing": sorted(targets.keys() - weights.keys() - optional),
        "unexpected": sorted(weights.keys() - targets.keys()),
        "of another shape": [
            f"{key} {list(weights[key].shape)} (expected {list(targets[key].shape)})"
            for key in sorted(targets.keys() & weights.keys())
            if weights[key].shape != targets[key].shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in problems.items() if keys)
        raise InputError(f"the state dict does not fit the model. {listed}")
    output = original["decoder.output"]
    with torch.no_grad():
        for key in targets.keys() & weights.keys():
            value = weights[key]
            targets[key].copy_(value[list(class_order)] if key.startswith(f"{output}.") else value)


def _renamed(key: str, modules: Mapping[str, str]) -> str:
    module, _, parameter = key.rpartition(".")
    return f"{modules[module]}.{parameter}"
