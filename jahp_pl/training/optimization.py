"""Parts of an optimizer step: learning rate, noise, averaged weights and the count of skipped steps.

The learning rate and the noise are functions of the step alone, so that a run resumes exactly.
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

    It rises linearly from 0 over the warm-up and reaches the peak at its last step. Then it stays there, or falls by a
    half cosine to `final_factor` times the peak. The cosine advances with the steps or with the time, whichever is
    further, so that a run limited by time anneals too.

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
    """Compute the decay after some steps, min(decay, (1 + step) / (10 + step)), which soon forgets the random start."""
    return min(decay, (1 + step) / (10 + step))


def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Update all parameters: average <- decay * average + (1 - decay) * model, without synchronization."""
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    update(list(average.parameters()), list(model.parameters()), 0)


def seed_noise(*entropy: int) -> None:
    """Seed the noise of subsequent computations on all devices.

    Args:
        entropy: the seed of the run, and the purpose of the noise, e.g. rank and step.
    """
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))


class SkipCounter:
    """Counts skipped steps on the device, without waiting for it: in total, currently in a row, longest row."""

    def __init__(self) -> None:
        self._counts = torch.zeros(3)

    def to(self, device: torch.device, total: int) -> None:
        """Continue counting on a device, from `total`."""
        self._counts = torch.tensor([float(total), 0.0, 0.0], device=device)

    def add(self, skipped: Tensor) -> None:
        """Count one step.

        Args:
            skipped: () 1.0 if it was skipped, else 0.0.
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
        """Longest row of skipped steps in this session. Waits for the device."""
        return int(self._counts[2])
