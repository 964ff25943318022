"""Parts of an optimizer step: learning rate, noise, averaged weights and counters of skipped steps.

The noise and, without a time limit, the learning rate are functions of the step alone, so that a run resumes exactly.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jahp_pl.config import OptimConfig


def learning_rate(config: OptimConfig, step: int, max_steps: int, time_share: float = 0.0) -> float:
    """Compute the learning rate of one optimizer step.

    It rises linearly from 0 and reaches the peak at the last step of the warm-up. It then stays there, or falls along a
    half cosine to `final_factor` times the peak. The cosine advances with steps or with time, whichever is further
    along, so that a run limited by time anneals too.

    Args:
        config: peak, warm-up and schedule.
        step: number of optimizer steps already done.
        max_steps: optimizer steps of the whole run.
        time_share: training time relative to the time limit, from 0 to 1; 0 without a limit.
    """
    rate = config.learning_rate
    if step < config.warmup_steps:
        rate *= (step + 1) / config.warmup_steps
    if config.schedule == "cosine":
        steps_left = max(1, max_steps - config.warmup_steps)
        progress = min(1.0, max((step - config.warmup_steps) / steps_left, time_share, 0.0))
        # peak * (f + (1 - f) (1 + cos(pi progress)) / 2)
        rate *= config.final_factor + (1 - config.final_factor) * (1 + math.cos(math.pi * progress)) / 2
    return rate


Model = TypeVar("Model", bound=nn.Module)


def make_average(model: Model) -> Model:
    """Copy and freeze `model` in evaluation mode as the start of its average."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def decay_at(step: int, decay: float) -> float:
    """Compute the decay after `step` steps, min(decay, (1 + step) / (10 + step)); it is small at first, so that the
    average soon forgets the random initialization."""
    return min(decay, (1 + step) / (10 + step))


def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Update all parameters, average <- decay * average + (1 - decay) * model, without waiting for the device."""
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    update(list(average.parameters()), list(model.parameters()), 0)


def seed_noise(*entropy: int) -> None:
    """Seed torch's random generators on all devices.

    Args:
        entropy: the seed of the run, then numbers that identify the use of the noise, e.g. rank and step.
    """
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))


class SkipCounter:
    """Counter of skipped steps that stays on the device: the total, the current streak and the longest streak."""

    def __init__(self) -> None:
        self._counts = torch.zeros(3)

    def to(self, device: torch.device, total: int) -> None:
        """Continue counting from `total` on another device; streaks start anew."""
        self._counts = torch.tensor([float(total), 0.0, 0.0], device=device)

    def add(self, skipped: Tensor) -> None:
        """Count one step.

        Args:
            skipped: scalar, 1.0 if the step was skipped, otherwise 0.0.
        """
        total, in_row, longest = self._counts
        in_row = (in_row + 1) * skipped
        self._counts = torch.stack([total + skipped, in_row, torch.maximum(longest, in_row)])

    @property
    def total(self) -> int:
        """Number of skipped steps of the run. Waits for the device."""
        return int(self._counts[0])

    @property
    def longest(self) -> int:
        """Largest number of consecutive skipped steps in this session. Waits for the device."""
        return int(self._counts[2])
