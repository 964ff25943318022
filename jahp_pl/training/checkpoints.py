"""Keeps the best and the last checkpoints of a run, each replaced atomically."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from jahp_pl.files.atomic import atomic_writer, link_atomically
from jahp_pl.model_io.checkpoint import read_checkpoint
from jahp_pl.model_io.checkpoint_files import BEST, LAST, earlier_checkpoint
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.stopping import Stopped

MONITORED = "val/loss"
"""Metric that best.ckpt minimizes."""
FORMER_BEST = "best-of-former-settings.ckpt"
"""Name that best.ckpt gets when a run continues with changed settings that affect the result."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint I/O that writes files completely or not at all, and reads them without running pickled code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint to `path`.

        Raises:
            WriteError: if the disk is full; the previous checkpoint is kept.
        """
        with atomic_writer(Path(path)) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # After an OSError, torch still tries to finish its archive, fails again and raises that error instead.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def load_checkpoint(
        self, path: str | Path, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a whole checkpoint, with its tensors on the CPU.

        Raises:
            CheckpointError: if it is missing, damaged or from another project.
        """
        return read_checkpoint(path)


class BestAndLast(Checkpoint):
    """Callback that saves last.ckpt before and after each validation, at the end and on interruption.

    best.ckpt is a link to the best one. An interrupted validation loses no training, because the run resumes with that
    validation.

    Args:
        folder: folder of the checkpoints.
        every_steps: optimizer steps between saves if there is no validation.
        keep: number of recent checkpoints to keep: last.ckpt, and the ones before it as last-1.ckpt, last-2.ckpt, ...
        forgets_best: whether to ignore the best loss of the resumed checkpoint because it had other settings; the first
            save then renames best.ckpt to `FORMER_BEST`.
        latest_is_best: whether every validated checkpoint counts as the best so far. In a phase with
            `optim.search_effort`, the validation loss, of rounded latents, is not what the training reduces.

    Attributes:
        best_loss: lowest validation loss so far; infinite before the first validation.
        metrics: all metrics of the latest validation by name.
    """

    def __init__(
        self, folder: Path, every_steps: int, keep: int = 1, forgets_best: bool = False, latest_is_best: bool = False
    ) -> None:
        self.last, self.best = folder / LAST, folder / BEST
        self.every_steps, self.keep = every_steps, keep
        self.best_loss = math.inf
        self.metrics: dict[str, float] = {}
        self._is_best = False
        self._saved_step = -1
        self._forgets_best, self._latest_is_best = forgets_best, latest_is_best

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Link best.ckpt if the previous session was killed after it wrote last.ckpt and before it could do so."""
        self._saved_step = trainer.global_step or -1  # a resumed run starts from last.ckpt
        if self._is_best and trainer.is_global_zero:
            link_atomically(self.last, self.best)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save every few steps if there is no validation."""
        if not trainer.enable_validation and trainer.global_step % self.every_steps == 0:
            self._save(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save before the validation, which may be long and may fail."""
        assert isinstance(pl_module, CompressionModule)
        if not _is_training(trainer):
            return
        pl_module.validation_due = True
        if self._saved_step != trainer.global_step:
            self._is_best = False
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, and update best.ckpt if the loss is the best so far."""
        assert isinstance(pl_module, CompressionModule)
        if not _is_training(trainer):
            return
        pl_module.validation_due = False
        self.metrics = {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")
        }
        loss = self.metrics.get(MONITORED, math.nan)
        self._is_best = loss < self.best_loss or (self._latest_is_best and math.isfinite(loss))
        if self._is_best:
            self.best_loss = loss
        self._save(trainer)
        if self._is_best and trainer.is_global_zero:
            link_atomically(self.last, self.best)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save unless the last step has already been saved."""
        if self._saved_step != trainer.global_step:
            self._is_best = False
            self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save after a stop request, which reaches all ranks; after an error, some ranks may not get here, so saving
        could hang."""
        if isinstance(exception, Stopped) and self._saved_step != trainer.global_step:
            self._is_best = False
            self._save(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the state to store in the checkpoint."""
        return {"best_loss": self.best_loss, "metrics": self.metrics, "is_best": self._is_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        if self._forgets_best:
            return
        self.best_loss, self.metrics = state_dict["best_loss"], state_dict["metrics"]
        self._is_best = state_dict.get("is_best", False)

    def _save(self, trainer: Trainer) -> None:
        """Write last.ckpt, and keep the one before under another name."""
        if trainer.is_global_zero and self.last.exists() and self._saved_step != trainer.global_step:
            # A second save of the same step replaces the first, so that the kept checkpoints differ in their steps.
            # The older ones are links, so that last.ckpt always exists; the oldest is made first, so that none is lost.
            for number in range(self.keep - 1, 0, -1):
                if (newer := earlier_checkpoint(self.last.parent, number - 1)).exists():
                    link_atomically(newer, earlier_checkpoint(self.last.parent, number))
        if self._forgets_best and trainer.is_global_zero and self.best.exists():
            self.best.replace(self.best.with_name(FORMER_BEST))
        self._forgets_best = False
        trainer.save_checkpoint(self.last, weights_only=False)  # including optimizer and loops
        self._saved_step = trainer.global_step


def _is_training(trainer: Trainer) -> bool:
    """Check whether a validation is part of training, and neither a sanity check nor a separate one."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
