"""The tri-stage schedule."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nemo.core.optim.lr_scheduler import prepare_lr_scheduler

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules.tri_stage import TriStageSchedule


def make_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def rates(steps: int, **settings: float) -> list[float]:
    optimizer = make_optimizer()
    schedule = TriStageSchedule(optimizer, max_steps=steps, **settings)
    seen = []
    for _ in range(steps + 1):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_three_stages() -> None:
    seen = rates(20, init_lr=0.1, peak_lr=1.0, final_lr=0.01, warmup_steps=4, hold_steps=6)
    assert seen[0] == pytest.approx(0.1)
    assert seen[2] == pytest.approx(0.55)
    assert seen[4:11] == pytest.approx([1.0] * 7)
    assert seen[15] == pytest.approx(0.1)  # half way of an exponential decay by 100
    assert seen[20] == pytest.approx(0.01)


@given(
    steps=st.integers(1, 200),
    warmup=st.integers(0, 100),
    hold=st.integers(0, 100),
    init=st.floats(1e-6, 1e-2),
    final=st.floats(1e-6, 1e-2),
)
def test_rises_then_falls(steps: int, warmup: int, hold: int, init: float, final: float) -> None:
    if warmup + hold > steps:
        with pytest.raises(InputError, match=f"warmup_steps={warmup} and hold_steps={hold}"):
            TriStageSchedule(make_optimizer(), max_steps=steps, warmup_steps=warmup, hold_steps=hold)
        return
    schedule = TriStageSchedule(
        make_optimizer(),
        max_steps=steps,
        init_lr=init,
        peak_lr=1.0,
        final_lr=final,
        warmup_steps=warmup,
        hold_steps=hold,
    )
    values = [schedule.rate(step) for step in range(steps + 1)]
    peak = values.index(max(values))
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert min(init, final) * 0.999 <= min(values) and max(values) == 1.0


def test_rejects_rates_that_are_not_positive() -> None:
    with pytest.raises(InputError, match="final_lr=0"):
        TriStageSchedule(make_optimizer(), max_steps=10, final_lr=0.0)


def test_nemo_finds_it_by_name() -> None:
    schedule = prepare_lr_scheduler(
        make_optimizer(), {"name": "TriStage", "max_steps": 10, "peak_lr": 0.5, "warmup_steps": 2}
    )
    assert isinstance(schedule["scheduler"], TriStageSchedule)
    assert schedule["interval"] == "step"
