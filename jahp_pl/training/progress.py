"""Shows the progress line of a training run: step, speed, time left, training metrics and the last validation."""

from __future__ import annotations

import math
import shutil
import sys
import time
from contextlib import suppress
from typing import Any, TextIO

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from jahp_pl.text import count_of
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.stopping import Stopped

BAR_WIDTH = 20
"""Width of the bar in characters."""
CLEAR_LINE = "\r\x1b[K"
"""Terminal codes that clear the current line."""
TERMINAL_INTERVAL, FILE_INTERVAL = 0.5, 20.0
"""Minimum seconds between two updates of the line, on a terminal and in a file."""


class ProgressLine(ProgressBar):
    """Progress bar on one line, which a terminal updates in place; files and pipes get new lines.

    Lightning's TQDMProgressBar is not used because it cannot show a run that ends by time, and it floods log files.

    Args:
        name: name of the run.
        batch_size: images per optimizer step, over all devices.
        stream: output; None is standard error.
    """

    def __init__(self, name: str, batch_size: int, stream: TextIO | None = None) -> None:
        super().__init__()
        self.run_name, self.batch_size = name, batch_size
        self.stream = stream if stream is not None else sys.stderr
        self.is_terminal = self.stream.isatty()
        self._is_enabled = True
        self._last_validation = ""

    def disable(self) -> None:
        """Stop printing; Lightning calls this on all ranks but the first."""
        self._is_enabled = False

    def enable(self) -> None:
        """Print again."""
        self._is_enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start measuring time, and describe the run."""
        assert isinstance(pl_module, CompressionModule)
        self._start_time = self._shown_time = time.monotonic()
        self._start_step, self._start_progress = trainer.global_step, pl_module.progress
        self._shown_step = trainer.global_step
        self._validation_seconds = 0.0
        self._print(describe_run(trainer, pl_module))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the line if enough time has passed."""
        if time.monotonic() - self._shown_time >= (TERMINAL_INTERVAL if self.is_terminal else FILE_INTERVAL):
            self._show(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show on a terminal that a validation is running."""
        self._validation_start = time.monotonic()
        if self.is_terminal:
            self._show(trainer, pl_module, " | validating ...")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the results of the validation, and keep showing them."""
        self._validation_seconds += time.monotonic() - self._validation_start
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        # Rate and quality must refer to the same images: the coded ones, or all of them if none was coded.
        prefix = "val/file_" if "val/file_bpp" in metrics else "val/"
        rate, quality = metrics.get(f"{prefix}bpp"), metrics.get(f"{prefix}psnr")
        if rate is not None and quality is not None:
            self._last_validation = f" | validation {rate:.3f} bpp {quality:.2f} dB"
        self._show(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the final state, and whether the time limit ended the run."""
        assert isinstance(pl_module, CompressionModule)
        if self.is_terminal or trainer.global_step != self._shown_step:
            self._show(trainer, pl_module)
        self._end_line()
        settings = pl_module.config.trainer
        if trainer.global_step < settings.max_steps:
            self._print(
                f"time limit reached (trainer.max_time={settings.max_time}) after "
                f"{count_of(trainer.global_step, 'step')}"
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the line, so that an error starts on a new one; for a stop request, print how to continue."""
        self._end_line()
        if isinstance(exception, Stopped):
            self._print(str(exception))

    def format_line(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """Format the current state as one line."""
        assert isinstance(pl_module, CompressionModule)
        progress, steps = pl_module.progress, trainer.global_step - self._start_step
        seconds = time.monotonic() - self._start_time
        parts = [f"step {trainer.global_step}/{pl_module.config.trainer.max_steps}"]
        if (row := pl_module.latest) is not None:
            if math.isnan(row.loss):  # the mean over no step
                parts.append("the latest steps were skipped")
            else:
                parts += [f"loss {row.loss:.3f}", f"{row.bpp:.3f} bpp"]
            if not math.isnan(row.decibels):
                parts.append(f"{row.decibels:.2f} dB")
        if steps:
            training_seconds = max(seconds - self._validation_seconds, 1e-9)
            parts.append(f"{steps * self.batch_size / training_seconds:.1f} images/s")
        if self._start_progress < progress < 1:
            seconds_left = seconds / (progress - self._start_progress) * (1 - progress)
            parts.append(f"{format_duration(seconds_left)} left")
        num_filled = round(BAR_WIDTH * progress)
        bar = "█" * num_filled + "·" * (BAR_WIDTH - num_filled)
        return f"{self.run_name} {bar} {100 * progress:3.0f} % | {' | '.join(parts)}{self._last_validation}"

    def _show(self, trainer: Trainer, pl_module: LightningModule, suffix: str = "") -> None:
        """Write the line."""
        if not self._is_enabled:
            return
        self._shown_time, self._shown_step = time.monotonic(), trainer.global_step
        line = self.format_line(trainer, pl_module) + suffix
        if self.is_terminal:
            width = shutil.get_terminal_size().columns
            self._write(f"{CLEAR_LINE}{line[: width - 1]}")
        else:
            self._write(f"{line}\n")

    def _print(self, message: str) -> None:
        if self._is_enabled:
            self._write(f"{self.run_name}: {message}\n")

    def _end_line(self) -> None:
        if self._is_enabled and self.is_terminal:
            self._write("\n")

    def _write(self, text: str) -> None:
        """Write text if the stream accepts it; a full disk or a closed pipe or terminal must not end training."""
        with suppress(OSError):
            self.stream.write(text)
            self.stream.flush()


def describe_run(trainer: Trainer, module: CompressionModule) -> str:
    """Describe model, loss, batches, hardware, steps and time limits in one line."""
    config = module.config
    model, loss, settings = config.model, config.loss, config.trainer
    num_parameters = sum(parameter.numel() for parameter in module.model.parameters())
    lambdas = f"{loss.lmbda:g}" if loss.lmbda_max is None else f"{loss.lmbda:g} to {loss.lmbda_max:g}"
    parts = [
        f"{model.entropy_model} model, N={model.num_filters} M={model.num_latents}",
        f"{num_parameters:,} parameters",
        f"lambda {lambdas} ({loss.distortion})",
        f"{config.data.batch_size} crops of {config.data.crop_size} pixels per step",
        f"{trainer.world_size} x {module.device.type} in {trainer.precision}",
        f"steps {trainer.global_step} to {settings.max_steps}",
    ]
    if model.entropy_model != "factorized":
        parts.insert(1, f"{model.likelihood} K={model.num_components}")
    if module.copied_networks:
        parts.append(f"{' '.join(module.copied_networks)} from {config.optim.start_from}")
    if settings.max_time is not None:
        parts.append(f"at most {format_duration(settings.max_seconds())}")
    if settings.session_time is not None:
        parts.append(f"at most {format_duration(settings.session_seconds())} in this session")
    return ", ".join(parts)


def format_duration(seconds: float) -> str:
    """Format seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
