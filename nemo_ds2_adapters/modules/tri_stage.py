"""The tri-stage learning-rate schedule: warm up, hold, decay."""

import math
from dataclasses import dataclass

from nemo.core.config.schedulers import SchedulerParams
from nemo.core.optim.lr_scheduler import AVAILABLE_SCHEDULERS, register_scheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nemo_ds2_adapters.errors import InputError


class TriStageSchedule(LRScheduler):
    """Linear from `init_lr` to `peak_lr`, constant, then exponential to `final_lr` (Park et al. 2019, section 4.1).

    The schedule sets the learning rate itself, so the optimiser's `lr` has no effect.

    Args:
        optimizer: whose learning rate is set.
        max_steps: optimiser steps of the whole training.
        init_lr: learning rate at step 0.
        peak_lr: learning rate after warm-up.
        final_lr: learning rate at `max_steps`.
        warmup_steps: optimiser steps of warm-up.
        hold_steps: optimiser steps at the peak.
        last_epoch: step to resume at, -1 to start.

    Raises:
        InputError: a learning rate is not positive, or warm-up and hold take longer than the training.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        max_steps: int,
        init_lr: float = 1e-6,
        peak_lr: float = 1e-3,
        final_lr: float = 1e-6,
        warmup_steps: int = 0,
        hold_steps: int = 0,
        last_epoch: int = -1,
    ) -> None:
        if min(init_lr, peak_lr, final_lr) <= 0:
            raise InputError(f"init_lr={init_lr}, peak_lr={peak_lr}, final_lr={final_lr}: expected positive rates")
        if min(warmup_steps, hold_steps) < 0 or warmup_steps + hold_steps > max_steps:
            raise InputError(
                f"warmup_steps={warmup_steps} and hold_steps={hold_steps} do not fit into the {max_steps} steps of "
                "this training; lower them or train for more epochs"
            )
        self.init_lr, self.peak_lr, self.final_lr = init_lr, peak_lr, final_lr
        self.warmup_steps = warmup_steps
        self.decay_start = warmup_steps + hold_steps
        self.max_steps = max_steps
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate at the present step, once per parameter group."""
        return [self.rate(self.last_epoch)] * len(self.optimizer.param_groups)

    def rate(self, step: int) -> float:
        """The learning rate at an optimiser step."""
        if step < self.warmup_steps:
            return self.init_lr + (self.peak_lr - self.init_lr) * step / self.warmup_steps
        decay_steps = self.max_steps - self.decay_start
        if step <= self.decay_start or decay_steps == 0:
            return self.peak_lr
        progress = min((step - self.decay_start) / decay_steps, 1.0)
        return self.peak_lr * math.exp(progress * math.log(self.final_lr / self.peak_lr))


@dataclass
class TriStageParams(SchedulerParams):
    """Arguments of `TriStageSchedule` in a config's `optim.sched`, where its name is `TriStage`."""

    max_steps: int = 0
    init_lr: float = 1e-6
    peak_lr: float = 1e-3
    final_lr: float = 1e-6
    warmup_steps: int = 0
    hold_steps: int = 0


if "TriStage" not in AVAILABLE_SCHEDULERS:
    register_scheduler("TriStage", TriStageSchedule, TriStageParams)
