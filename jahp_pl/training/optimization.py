"""What surrounds an optimizer step: learning rate, noise, averaged weights and the count of skipped steps.

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
    """Learning rate of one optimizer step.

    Linear from 0 to the peak over the warm-up, reached by its last step; then the peak, or a half cosine down to
    `final_factor` times the peak whose progress is that of the steps or of the time, whichever is ahead. A run that is
    limited by time thus anneals too.

    Args:
        config: peak, warm-up and schedule.
        step: optimizer steps already done.
        max_steps: optimizer steps of the whole run.
        time_share: time trained over the time allowed, from 0 to 1; 0 where time is not limited.
    """
    rate = config.learning_rate
    if step < config.warmup_steps:
        rate *= (step + 1) / config.warmup_steps
    if config.schedule == "cosine":
        steps_left = max(1, max_steps - config.warmup_steps)
        progress = min(1.0, max((step - config.warmup_steps) / steps_left, time_share, 0.0))
        rate *= config.final_factor + (1 - config.final_factor) * (1 + math.cos(math.pi * progress)) / 2
    return rate


Model = TypeVar("Model", bound=nn.Module)


def make_average(model: Model) -> Model:
    """A frozen copy of `model` in evaluation mode, the start of its average."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def decay_at(step: int, decay: float) -> float:
    """Decay after so many steps: min(decay, (1 + step) / (10 + step)), so that the random start is soon forgotten."""
    return min(decay, (1 + step) / (10 + step))


def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model, over all parameters at once, without synchronisation."""
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    update(list(average.parameters()), list(model.parameters()), 0)


def set_noise(*entropy: int) -> None:
    """Seed the noise of what is computed next, on all devices.

    Args:
        entropy: the seed of the run, and what the noise is for, e.g. rank and step.
    """
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))


class Skips:
    """How many in all, how many in a row until now, and the longest row; a step does not wait for them."""

    def __init__(self) -> None:
        self._counts = torch.zeros(3)

    def to(self, device: torch.device, total: int) -> None:
        """Go on counting on a device, from `total`."""
        self._counts = torch.tensor([float(total), 0.0, 0.0], device=device)

    def add(self, skipped: Tensor) -> None:
        """Count one step.

        Args:
            skipped: () 1.0 where it was not made, else 0.0.
        """
        total, in_row, longest = self._counts
        in_row = (in_row + 1) * skipped
        self._counts = torch.stack([total + skipped, in_row, torch.maximum(longest, in_row)])

    @property
    def total(self) -> int:
        """Of the run. Waits for the device."""
        return int(self._counts[0])

    @property
    def longest(self) -> int:
        """In a row, in this session. Waits for the device."""
        return int(self._counts[2])
