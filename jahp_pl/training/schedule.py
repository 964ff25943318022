"""Computes how far a run has come, by steps and by time, and the learning rate at each step.

Without a time limit, both are functions of the step alone, so that a run resumes exactly.
"""

from __future__ import annotations

import math

from jahp_pl.config import Config, OptimConfig
from jahp_pl.training.clock import TrainingClock


class Schedule:
    """Progress and learning rate of a run that ends by steps or by time, whichever limit it reaches first.

    Args:
        config: the whole experiment.
        clock: training time of the run.

    Attributes:
        max_steps: optimizer steps of the whole run; the module lowers it if the Trainer ends earlier.
    """

    def __init__(self, config: Config, clock: TrainingClock) -> None:
        self.max_steps: float = config.trainer.max_steps
        self._config, self._clock = config, clock

    def progress(self, step: int) -> float:
        """Return the finished share of the run after `step` steps, from 0 to 1."""
        return min(1.0, max(step / self.max_steps, self._time_share()))

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of the entropy model for the step after `step` steps."""
        return learning_rate(self._config.optim, step, int(self.max_steps), self._time_share())

    def _time_share(self) -> float:
        """Return the training time relative to the time limit; 0 without a limit."""
        return self._clock.seconds / self._config.trainer.max_seconds()


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
