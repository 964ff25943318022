"""The learning rate as a function of the step and of the share of the time that has passed; no state to resume."""

from __future__ import annotations

import math

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
