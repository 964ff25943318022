"""Finds the checkpoint from which a run resumes, and checks that the run may continue with its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_warn

from jahp_pl.config import Config, ConfigError
from jahp_pl.config.changes import Change, find_changes
from jahp_pl.files.atomic import link_atomically
from jahp_pl.model_io.checkpoint import HYPER_PARAMETERS, NewestCheckpoint, RunCounters, read_newest
from jahp_pl.model_io.checkpoint_files import CHECKPOINTS, LAST
from jahp_pl.training import is_first_rank


def restore_last(newest: NewestCheckpoint) -> str:
    """Restore last.ckpt from the newest intact checkpoint, keep the damaged file, and return a warning to print.

    Raises:
        WriteError: if the disk is full.
    """
    last = newest.path.with_name(LAST)
    if last.exists():
        link_atomically(last, last.with_name(f"{LAST}.damaged"))
    link_atomically(newest.path, last)
    step = newest.content["global_step"]
    return f"{newest.damage}; continuing from {newest.path.name}, step {step}; the damaged file is kept beside it"


class ResumePoint(NamedTuple):
    """State from which a run continues."""

    path: Path
    """Checkpoint to load."""
    steps: int
    """Number of optimizer steps done."""
    seconds: float
    """Training time so far, in seconds."""
    validation_due: bool
    """Whether a validation after these steps started but did not finish."""
    changes: tuple[Change, ...] = ()
    """Changed settings that affect the result; empty unless `allow_changes` is set."""

    def is_end_of(self, config: Config) -> bool:
        """Check whether nothing is left to do: the steps or the time are used up, and the last validation is done."""
        return config.trainer.is_over(self.steps, self.seconds) and not self.validation_due


def find_resume_point(config: Config) -> ResumePoint | None:
    """Find the newest intact checkpoint of the run folder; None if it has no checkpoint.

    Raises:
        ConfigError: if `resume` is false and the folder has a checkpoint, if its settings differ in a way that
            `check_changes` refuses, or if they differ and the run is already complete.
        CheckpointError: if no checkpoint can be read.
    """
    folder = config.run_dir / CHECKPOINTS
    path = folder / LAST
    if path.exists() and not config.resume:
        raise ConfigError(
            f"resume=False: {path} exists; choose another name=..., delete the folder, or resume it with resume=true"
        )
    newest = read_newest(folder)
    if newest is None:
        return None
    if newest.path != path and is_first_rank():
        rank_zero_warn(restore_last(newest))
    content = newest.content
    changed = find_changes(content[HYPER_PARAMETERS], config)
    check_changes(changed, content[HYPER_PARAMETERS], path, config)
    counters, steps = RunCounters.read(content), int(content["global_step"])
    point = ResumePoint(newest.path, steps, counters.seconds, counters.validation_due, tuple(changed))
    if changed and point.is_end_of(config):
        raise ConfigError(
            f"trainer.max_steps={config.trainer.max_steps}: {path} has {steps} steps and is complete, so the changed "
            "settings would have no effect; raise trainer.max_steps or trainer.max_time"
        )
    return point


def check_changes(changed: list[Change], stored: dict[str, Any], path: Path, config: Config) -> None:
    """Refuse to continue with changed settings, unless `allow_changes` permits it and the weights still fit.

    Args:
        changed: result of `config.changes.find_changes`.
        stored: all settings of the checkpoint.
        path: path of the checkpoint.
        config: settings of this run.

    Raises:
        ConfigError: if the architecture or the optimizer changed, or weight averaging was turned on or off; without
            `allow_changes`, if any setting that affects the result changed.
    """
    for key, before, now in changed:
        is_architecture = key.startswith("model.") and key != "model.quantization"
        if is_architecture or key == "optim.optimizer":  # one optimizer cannot use another's state
            raise ConfigError(f"{key}={now}: {path} was trained with {before}; set it back, or choose another name")
    if bool(stored["optim"]["ema_decay"]) != bool(config.optim.ema_decay):
        raise ConfigError(
            f"optim.ema_decay={config.optim.ema_decay}: {path} was trained with {stored['optim']['ema_decay']}; "
            "averaging cannot be turned on or off during a run; set it back, or choose another name"
        )
    if changed and not config.allow_changes:
        raise ConfigError(
            f"{path}: was trained with {', '.join(map(str, changed))}; set them back, choose another name=... (and "
            f"optim.start_from={config.run_dir} to start with these weights), or resume in this folder with "
            "allow_changes=true, which forgets the best loss"
        )
