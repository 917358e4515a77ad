"""Freezing, counting and showing."""

import io

import pytest
import torch
from rich.console import Console

from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.enabling import enable_adapters
from nemo_ds2_adapters.adapters.parameters import adapter_summary, count_parameters, freeze_base, unfreeze_base


@pytest.fixture
def adapted(base, linear, train):
    add_adapter(base, "a", linear)
    add_adapter(base, "encoder+decoder:b", linear)
    return base


def named(model, in_adapters: bool) -> list[torch.nn.Parameter]:
    return [p for path, p in model.named_parameters() if (".adapter_layer." in path) == in_adapters]


def test_freeze_and_unfreeze(adapted) -> None:
    adapted.train()
    freeze_base(adapted)
    assert not any(p.requires_grad for p in named(adapted, False))
    assert all(p.requires_grad for p in named(adapted, True))
    for path, module in adapted.named_modules():
        assert module.training == (path == "" or ".adapter_layer" in path), path
    unfreeze_base(adapted)
    assert all(p.requires_grad for p in adapted.parameters())
    assert all(module.training for module in adapted.modules())


def test_unfreezing_brings_back_what_nemo_took(make_base, linear) -> None:
    model = make_base("conformer")
    add_adapter(model, "a", linear)
    model.freeze()
    model.unfreeze_enabled_adapters()
    norm = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d))
    assert not norm.track_running_stats
    unfreeze_base(model)
    assert norm.track_running_stats and norm.weight.requires_grad


def test_count(adapted) -> None:
    adapter = sum(p.numel() for p in named(adapted, True))
    base = sum(p.numel() for p in named(adapted, False))
    assert count_parameters(adapted) == {"total": base + adapter, "base": base, "adapter": adapter}
    freeze_base(adapted)
    assert count_parameters(adapted, trainable_only=True) == {"total": adapter, "base": 0, "adapter": adapter}
    adapted.decoder_again = adapted.decoder  # a module that appears twice counts once
    assert count_parameters(adapted)["base"] == base


def test_summary(adapted) -> None:
    enable_adapters(adapted, "b")
    adapted.freeze()
    adapted.unfreeze_enabled_adapters()
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(adapter_summary(adapted))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.export_text().splitlines()]
    (a, b) = [line for line in lines if line]
    part = count_parameters(adapted)
    share = f"{(part['adapter'] - int(a[3])) / part['base']:.2%}"
    assert [a[0], a[1], a[2], a[5], a[6]] == ["a", "encoder", "LinearAdapter", "no", "no"]
    assert b == ["b", "encoder+decoder", "LinearAdapter", str(part["adapter"] - int(a[3])), share, "yes", "yes"]


def test_summary_of_a_plain_model(base) -> None:
    assert adapter_summary(base).row_count == 0
