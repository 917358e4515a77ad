"""A tiny model with many users, and what each of them gets alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from torch import Tensor, nn

from nemo_ds2_adapters import add_adapter, enabled_adapters

STRATEGIES = "nemo.core.classes.mixins.adapter_mixin_strategies"
MLP = "nemo_ds2_adapters.modules.MLPAdapter"
HEAD = "nemo_ds2_adapters.modules.MLPHeadAdapter"
LINEAR = "nemo.collections.common.parts.adapter_modules.LinearAdapter"
REPLACING = {"_target_": f"{STRATEGIES}.ReturnResultAdapterStrategy"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {  # module, config
    "first": ("", {"_target_": MLP, "hidden_dims": [5, 4], "layers": "first"}),
    "last": ("", {"_target_": MLP, "hidden_dims": [3], "layers": "last", "norm_position": "none"}),
    "all": ("", {"_target_": MLP, "hidden_dims": [3], "layers": "all", "norm_position": "post", "activation": "gelu"}),
    "listed": ("encoder", {"_target_": LINEAR, "dim": 4, "layers": [1], "norm_position": "post"}),
    "replacing": ("", {"_target_": MLP, "hidden_dims": [3], "layers": [0], "adapter_strategy": REPLACING}),
    "decoder": ("decoder", {"_target_": LINEAR, "dim": 4, "activation": "identity"}),
    "both": ("encoder+decoder", {"_target_": LINEAR, "dim": 3}),
    "head": ("decoder", {"_target_": HEAD, "hidden_dims": [6]}),
    "own_head": ("decoder", {"_target_": HEAD, "hidden_dims": [6], "mode": "replace", "dropout": 0.5}),
}
Attach = Callable[..., None]
Solo = Callable[[EncDecCTCModel, str | None, dict[str, Tensor]], Tensor]


@pytest.fixture
def attach() -> Attach:
    """Adds users of some kinds, called `<kind>_<number>`, with weights as if trained; none is enabled."""

    def add(model: EncDecCTCModel, *kinds: str, each: int = 1) -> list[str]:
        names = []
        for kind in kinds:
            module, cfg = KINDS[kind]
            for number in range(each):
                names.append(f"{kind}_{number}")
                add_adapter(model, f"{module}:{names[-1]}" if module else names[-1], {**cfg, "enabled": False})
        for path, parameter in model.named_parameters():
            if ".adapter_layer." in path:
                nn.init.normal_(parameter, std=0.3)
        return names

    return add


@pytest.fixture
def solo() -> Solo:
    """What a batch gives with one adapter enabled for all of it: log probabilities `[B, T, V]`."""

    def run(model: EncDecCTCModel, user: str | None, batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad(), enabled_adapters(model, user):
            return model(**batch)[0]

    return run
