"""Stopping a run before its end so that it can go on: at a signal, or the end of a session, all ranks at one step."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from jahp_pl.config import TrainerConfig

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))
"""Ctrl+C; what ends a process in good order; what SLURM is told to send ahead of a job's limit (docs/slurm.sh)."""


class Stopped(SystemExit):
    """The run was stopped before its end and has saved itself. Not caught, it ends the process with its `code`: 0 where
    the session's time was up, else 128 + the signal, as shells have it; 0 on all ranks but the first, which speaks.

    Args:
        reason: in words.
        status: of the first rank.
        trainer: that is stopped.
    """

    def __init__(self, reason: str, status: int, trainer: Trainer) -> None:
        super().__init__(status if trainer.is_global_zero else 0)
        self.reason, self.step = reason, trainer.global_step

    def __str__(self) -> str:
        return f"stopped after step {self.step}, {self.reason}; not at its end, the same command goes on from there"


class StopRequests:
    """Listens for signals and watches the session's time.

    While training, a signal is only noted: after each step the ranks agree whether any has one, so that all save the
    same step. A validation changes nothing and was saved before: it is left at once, by each rank for itself.

    Args:
        settings: what a session may take, from here on.
    """

    def __init__(self, settings: TrainerConfig) -> None:
        self._settings, self._start = settings, time.monotonic()
        self._signal: signal.Signals | None = None
        self._is_validating = False

    def listen(self, trainer: Trainer) -> None:
        """Take signals over from Lightning until the trainer ends, which puts back what was before.

        Lightning's own handler talks to the other ranks from within whatever a rank is just doing, so that they may
        wait for different things, and its way to requeue SLURM jobs saves in the middle of a step.
        """
        self._trainer = trainer
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._hear)

    def stop_if_asked(self) -> None:
        """Call on all ranks after the same step.

        Raises:
            Stopped: on all of them, or on none.
        """
        is_asked = self._signal is not None or time.monotonic() - self._start >= self._settings.session_seconds()
        if self._trainer.world_size > 1:
            is_asked = self._trainer.strategy.reduce_boolean_decision(is_asked, all=False)
        if is_asked:
            raise self._stopped()

    def start_validation(self) -> None:
        """Call on all ranks when the checkpoint before validation is written; see `stop_if_asked`."""
        self.stop_if_asked()
        self._is_validating = True

    def end_validation(self) -> None:
        """Call before its result is saved."""
        self._is_validating = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        is_second = self._signal is not None
        self._signal = signal.Signals(number)
        if number == signal.SIGINT:
            if is_second:
                raise KeyboardInterrupt  # who presses it twice does not want to wait for a step
        elif isinstance(launcher := self._trainer.strategy.launcher, _SubprocessScriptLauncher):
            launcher.kill(number)  # a terminal sends Ctrl+C to all, others signal the process that they started
        if self._is_validating:
            self._is_validating = False
            raise self._stopped()

    def _stopped(self) -> Stopped:
        if self._signal is not None:
            return Stopped(f"by {self._signal.name}", 128 + self._signal, self._trainer)
        limit = self._settings.session_time
        return Stopped(f"the session's time (trainer.session_time={limit}) is up", 0, self._trainer)
