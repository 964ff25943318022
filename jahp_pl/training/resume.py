"""Where a run goes on: the last whole checkpoint of its folder, if it was trained with the same settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_warn

from jahp_pl.checkpoint import HYPER_PARAMETERS, is_validation_due, read_newest
from jahp_pl.config import Config, ConfigError
from jahp_pl.setting_changes import Change, changes
from jahp_pl.training import is_first_rank
from jahp_pl.training.checkpoints import put_back


class ResumePoint(NamedTuple):
    """Where a run goes on."""

    path: Path
    """Checkpoint to load."""
    steps: int
    """Optimizer steps done."""
    seconds: float
    """Trained so far."""
    validation_due: bool
    """Whether the validation of that step was cut off."""
    changes: tuple[Change, ...] = ()
    """Settings that change the result and are not those of the checkpoint; only with `allow_changes`."""

    def is_end_of(self, config: Config) -> bool:
        """Whether nothing is left to do: the steps or the time are used up, the last validation is made."""
        return config.trainer.is_over(self.steps, self.seconds) and not self.validation_due


def find_resume_point(config: Config) -> ResumePoint | None:
    """The run folder's last checkpoint, if it has one and it fits; where it is damaged, the one before.

    Raises:
        ConfigError: `resume` is false and the folder holds a checkpoint; or the checkpoint was trained with other
            settings, see `check_changes`.
        CheckpointError: it cannot be read.
    """
    folder = config.run_dir / "checkpoints"
    path = folder / "last.ckpt"
    if path.exists() and not config.resume:
        raise ConfigError(
            f"resume=False: {path} exists; choose another name=..., delete the folder, or continue it with resume=true"
        )
    newest = read_newest(folder)
    if newest is None:
        return None
    if newest.path != path and is_first_rank():
        rank_zero_warn(put_back(newest))
    content = newest.content
    changed = changes(content[HYPER_PARAMETERS], config)
    check_changes(changed, content[HYPER_PARAMETERS], path, config)
    seconds, steps = float(content["training"]["seconds"]), int(content["global_step"])
    point = ResumePoint(newest.path, steps, seconds, is_validation_due(content), tuple(changed))
    if changed and point.is_end_of(config):
        raise ConfigError(
            f"trainer.max_steps={config.trainer.max_steps}: {path} has {steps} steps and is at its end, so the changed "
            "settings would train nothing; raise trainer.max_steps or trainer.max_time"
        )
    return point


def check_changes(changed: list[Change], then: dict[str, Any], path: Path, config: Config) -> None:
    """Refuse to go on with other settings than before, unless `allow_changes` asks for it and the weights still fit.

    Args:
        changed: see `setting_changes.changes`.
        then: all settings of the checkpoint.
        path: of the checkpoint.
        config: what is asked for now.

    Raises:
        ConfigError: another architecture, an average of the weights that begins or ends; without `allow_changes`, any
            change of the result.
    """
    for key, before, now in changed:
        if key.startswith("model.") and key != "model.quantization":
            raise ConfigError(f"{key}={now}: {path} was trained with {before}; set it back, or choose another name")
    if bool(then["optim"]["ema_decay"]) != bool(config.optim.ema_decay):
        raise ConfigError(
            f"optim.ema_decay={config.optim.ema_decay}: {path} was trained with {then['optim']['ema_decay']}; an "
            "average cannot be started or dropped in between; set it back, or choose another name"
        )
    if changed and not config.allow_changes:
        raise ConfigError(
            f"{path}: was trained with {', '.join(map(str, changed))}; set them back, choose another name=... (and "
            f"optim.start_from={config.run_dir} to begin with these weights), or go on in this folder with "
            "allow_changes=true, which forgets the best loss"
        )
