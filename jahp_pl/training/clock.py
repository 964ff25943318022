"""How long a run has trained, over all its resumes, agreed upon by all ranks; and how long one step takes."""

from __future__ import annotations

import time

from lightning.pytorch import Trainer


class TrainingClock:
    """Wall time of training, validation included, stops between resumes left out.

    Attributes:
        seconds: trained so far; the same on all ranks, so that what follows from it (learning rate, end) is too.
    """

    AGREE_EVERY = 10
    """Steps between two broadcasts of rank 0's time; each waits for the device."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last = self._step_start = time.monotonic()
        self._num_steps = 0

    def start(self) -> None:
        """Call when training starts."""
        self._last = self._step_start = time.monotonic()
        self._num_steps = 0

    def advance(self, trainer: Trainer, step: int, is_shared: bool) -> None:
        """Call after every step.

        Args:
            trainer: knows the other ranks.
            step: the same on all ranks.
            is_shared: whether decisions hang on the time, so that ranks must agree on it.
        """
        self._num_steps += 1
        if is_shared and trainer.world_size > 1 and step % self.AGREE_EVERY:
            return
        now = time.monotonic()
        passed = now - self._last
        self._last = now
        self.seconds += trainer.strategy.broadcast(passed) if is_shared else passed

    def pause_steps(self) -> None:
        """Call when validation starts: what follows is no training step."""
        self._pause_start = time.monotonic()

    def resume_steps(self) -> None:
        """Call when validation ends."""
        self._step_start += time.monotonic() - self._pause_start

    def take_seconds_per_step(self) -> float:
        """Mean since the last call, without pauses."""
        now = time.monotonic()
        mean = (now - self._step_start) / max(1, self._num_steps)
        self._step_start, self._num_steps = now, 0
        return mean
