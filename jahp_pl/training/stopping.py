"""Stops a run after a signal or a time limit, on all ranks at the same step, so that it can continue later."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_info

from jahp_pl.config import TrainerConfig

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""Signals that stop a run: Ctrl+C, the usual request to terminate, a closed terminal, and the signal that SLURM sends
before a job's time limit (docs/slurm.sh)."""


class Stopped(SystemExit):
    """Exit that is raised after a run was stopped early and saved.

    If it is not caught, the process ends with the status in `code`. On rank 0, which prints the reason, this is 0 if
    the session's time was up, otherwise 128 + the signal number, as in shells. On other ranks it is 0.

    Args:
        reason: cause of the stop, for the message.
        status: exit status of rank 0.
        trainer: the stopped trainer.
    """

    def __init__(self, reason: str, status: int, trainer: Trainer) -> None:
        super().__init__(status if trainer.is_global_zero else 0)
        self.reason, self.step = reason, trainer.global_step

    def __str__(self) -> str:
        return f"stopped after step {self.step} ({self.reason}); run the same command again to continue"


class StopRequests:
    """Handler of stop requests: signals, and the time limit of the session.

    During a training step, a signal is only recorded. After the step, the ranks agree on whether any of them received
    one, so that all save the same step. During a validation, which changes no weights and starts with a save, each rank
    stops at once.

    Args:
        settings: time limit of the session, which starts now.
    """

    def __init__(self, settings: TrainerConfig) -> None:
        self._settings, self._start = settings, time.monotonic()
        self._signal: signal.Signals | None = None
        self._is_validating = False

    def handle_signals(self, trainer: Trainer) -> None:
        """Replace Lightning's signal handlers until the trainer ends and restores the previous ones.

        Lightning's handler communicates with other ranks from inside any operation, so ranks may deadlock. Its
        requeueing of SLURM jobs saves in the middle of a step.
        """
        self._trainer = trainer
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
                    signal.signal(number, self._on_signal)

    def stop_if_requested(self) -> None:
        """Stop if any rank has a request; call it on all ranks after the same step.

        Raises:
            Stopped: on all ranks, or on none.
        """
        is_requested = self._signal is not None or time.monotonic() - self._start >= self._settings.session_seconds()
        if self._trainer.world_size > 1:
            is_requested = self._trainer.strategy.reduce_boolean_decision(is_requested, all=False)
        if is_requested:
            raise self._stopped()

    def start_validation(self) -> None:
        """Stop if any rank has a request, otherwise let signals end the validation; call it after the checkpoint that
        precedes validation is saved."""
        self.stop_if_requested()
        self._is_validating = True

    def end_validation(self) -> None:
        """Only record signals from now on; call it before the result of the validation is saved."""
        self._is_validating = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Record a signal, pass it on to other processes, and end a validation at once."""
        is_second = self._signal is not None
        self._signal = signal.Signals(number)
        if number == signal.SIGINT:
            if is_second:
                raise KeyboardInterrupt  # the user does not want to wait for the end of the step
        elif isinstance(launcher := self._trainer.strategy.launcher, _SubprocessScriptLauncher):
            launcher.kill(number)  # a terminal sends Ctrl+C to all processes, other signals reach only the first
        if self._is_validating:
            self._is_validating = False
            raise self._stopped()

    def _stopped(self) -> Stopped:
        if self._signal is not None:
            return Stopped(self._signal.name, 128 + self._signal, self._trainer)
        limit = self._settings.session_time
        return Stopped(f"time limit trainer.session_time={limit}", 0, self._trainer)


def explain_end(trainer: Trainer, settings: TrainerConfig, seconds: float) -> None:
    """Tell the user of a Trainer of their own that the configuration ends the run, unless the Trainer ends it too.

    Args:
        trainer: trainer after its last step.
        settings: limits of the run.
        seconds: training time of the run.
    """
    step = trainer.global_step
    if step != trainer.max_steps and settings.is_over(step, seconds):
        rank_zero_info(
            f"training ends after step {step}, at trainer.max_steps or trainer.max_time of the configuration; "
            "raise them to let the Trainer decide"
        )
