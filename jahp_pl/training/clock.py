"""Measures the training time of a run over all its sessions, and the time per step."""

from __future__ import annotations

import time

from lightning.pytorch import Trainer


class TrainingClock:
    """Wall-clock time of training: includes validation, excludes pauses between sessions.

    Attributes:
        seconds: training time. All ranks have the same value if anything depends on it (learning rate, end of the run).
    """

    SYNC_STEPS = 10
    """Steps between two broadcasts of rank 0's time; each waits for the device."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last = self._step_start = time.monotonic()
        self._num_steps = 0

    def start(self) -> None:
        """Start the clock; call it when training starts."""
        self._last = self._step_start = time.monotonic()
        self._num_steps = 0

    def advance(self, trainer: Trainer, step: int, is_shared: bool) -> None:
        """Advance the clock; call it after every step.

        Args:
            trainer: the trainer, for communication between ranks.
            step: optimizer step, the same on all ranks.
            is_shared: whether any decision depends on elapsed time, so that ranks must agree on it.
        """
        self._num_steps += 1
        if is_shared and trainer.world_size > 1 and step % self.SYNC_STEPS:
            return
        now = time.monotonic()
        passed = now - self._last
        self._last = now
        self.seconds += trainer.strategy.broadcast(passed) if is_shared else passed

    def pause_steps(self) -> None:
        """Stop counting time toward the time per step; call it when validation starts."""
        self._pause_start = time.monotonic()

    def resume_steps(self) -> None:
        """Count time toward the time per step again; call it when validation ends."""
        self._step_start += time.monotonic() - self._pause_start

    def take_seconds_per_step(self) -> float:
        """Return the mean seconds per step since the last call, without pauses."""
        now = time.monotonic()
        mean = (now - self._step_start) / max(1, self._num_steps)
        self._step_start, self._num_steps = now, 0
        return mean
