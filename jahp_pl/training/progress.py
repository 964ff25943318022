"""One line that says how far training is, how well it goes and how long it will take."""

from __future__ import annotations

import math
import shutil
import sys
import time
from typing import Any, TextIO

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from jahp_pl.training.module import CompressionModule
from jahp_pl.training.stopping import Stopped

BAR_WIDTH = 20
ERASE = "\r\x1b[K"
"""To the start of the line, and clear it."""


class ProgressLine(ProgressBar):
    """Step of how many, loss, rate, decibels, images per second, time left, and the last validation's figures.

    On a terminal the line redraws itself twice a second; into a file or a pipe a new line is written now and then.

    Args:
        name: of the run.
        batch_size: images per optimizer step, over all devices.
        stream: where to; standard error if None.
    """

    def __init__(self, name: str, batch_size: int, stream: TextIO | None = None) -> None:
        super().__init__()
        self.run_name, self.batch_size = name, batch_size
        self.stream = stream if stream is not None else sys.stderr
        self.redraws = self.stream.isatty()
        self.interval = 0.5 if self.redraws else 20.0  # seconds
        self._enabled = True
        self._validated = ""

    def disable(self) -> None:
        """Lightning calls this on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Draw again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks, say what is trained."""
        assert isinstance(pl_module, CompressionModule)
        self._start = self._drawn = time.monotonic()
        self._start_step, self._start_share, self._paused = trainer.global_step, pl_module.progress, 0.0
        self._drawn_step = trainer.global_step
        self._say(introduction(trainer, pl_module))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraw, not too often."""
        if time.monotonic() - self._drawn >= self.interval:
            self._draw(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that training pauses."""
        self._pause_start = time.monotonic()
        if self.redraws:
            self._draw(trainer, pl_module, " | validating ...")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep its figures on the line."""
        self._paused += time.monotonic() - self._pause_start
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        # Rate and quality of the same images: of those that were coded, or else of all.
        kind = "file_" if "val/file_bpp" in metrics else ""
        rate, quality = metrics.get(f"val/{kind}bpp"), metrics.get(f"val/{kind}psnr")
        if rate is not None and quality is not None:
            self._validated = f" | validation {rate:.3f} bpp {quality:.2f} dB"
        self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last state on the screen, and say so if time ran out."""
        assert isinstance(pl_module, CompressionModule)
        if self.redraws or trainer.global_step != self._drawn_step:
            self._draw(trainer, pl_module)
        self._end()
        settings = pl_module.config.trainer
        if trainer.global_step < settings.max_steps:
            self._say(f"time is up (trainer.max_time={settings.max_time}) after {trainer.global_step} steps")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the screen to the error; say how to go on where there is none."""
        self._end()
        if isinstance(exception, Stopped):
            self._say(str(exception))

    def line(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """The state in words."""
        assert isinstance(pl_module, CompressionModule)
        share, steps, now = pl_module.progress, trainer.global_step - self._start_step, time.monotonic()
        filled = round(BAR_WIDTH * share)
        parts = [f"step {trainer.global_step}/{pl_module.config.trainer.max_steps}"]
        if (row := pl_module.latest) is not None:
            parts += [f"loss {row.loss:.3f}", f"{row.bpp:.3f} bpp"]
            if not math.isnan(row.decibels):
                parts.append(f"{row.decibels:.2f} dB")
        if steps:
            parts.append(f"{steps * self.batch_size / max(now - self._start - self._paused, 1e-9):.1f} images/s")
        if self._start_share < share < 1:
            left = (now - self._start) / (share - self._start_share) * (1 - share)
            parts.append(f"{clock(left)} left")
        bar = "█" * filled + "·" * (BAR_WIDTH - filled)
        return f"{self.run_name} {bar} {100 * share:3.0f} % | {' | '.join(parts)}{self._validated}"

    def _draw(self, trainer: Trainer, pl_module: LightningModule, addition: str = "") -> None:
        if not self._enabled:
            return
        self._drawn, self._drawn_step = time.monotonic(), trainer.global_step
        line = self.line(trainer, pl_module) + addition
        if self.redraws:
            width = shutil.get_terminal_size().columns
            self.stream.write(f"{ERASE}{line[: width - 1]}")
        else:
            self.stream.write(f"{line}\n")
        self.stream.flush()

    def _say(self, sentence: str) -> None:
        if self._enabled:
            self.stream.write(f"{self.run_name}: {sentence}\n")
            self.stream.flush()

    def _end(self) -> None:
        if self._enabled and self.redraws:
            self.stream.write("\n")
            self.stream.flush()


def introduction(trainer: Trainer, module: CompressionModule) -> str:
    """What is trained, on what, from where to where, in one line."""
    config = module.config
    model, loss, settings = config.model, config.loss, config.trainer
    parts = [
        f"{model.rung} model, N={model.num_filters} M={model.num_latents}",
        f"{sum(parameter.numel() for parameter in module.model.parameters()) / 1e6:.1f} million weights",
        f"lambda {loss.lmbda:g} ({loss.distortion})",
        f"{config.data.batch_size} crops of {config.data.crop_size} a step",
        f"{trainer.world_size} x {module.device.type} in {trainer.precision}",
        f"steps {trainer.global_step} to {settings.max_steps}",
    ]
    if model.rung != "factorized":
        parts.insert(1, f"{model.likelihood} K={model.num_components}")
    if module.taken:
        parts.append(f"{' '.join(module.taken)} from {config.optim.start_from}")
    if settings.max_time is not None:
        parts.append(f"at most {clock(settings.max_seconds())}")
    if settings.session_time is not None:
        parts.append(f"{clock(settings.session_seconds())} of it now")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
