"""Where a run goes on: the last whole checkpoint of its folder, if it is of the same architecture."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_warn

from jahp_pl.checkpoint import HYPER_PARAMETERS, is_validation_due, read_newest
from jahp_pl.config import Config, ConfigError, to_dict
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

    def is_end_of(self, config: Config) -> bool:
        """Whether nothing is left to do: the steps or the time are used up, the last validation is made."""
        return config.trainer.is_over(self.steps, self.seconds) and not self.validation_due


def find_resume_point(config: Config) -> ResumePoint | None:
    """The run folder's last checkpoint, if it has one and it fits; where it is damaged, the one before.

    Raises:
        ConfigError: `resume` is false and the folder holds a checkpoint; or the checkpoint has another architecture.
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
    then = content[HYPER_PARAMETERS]
    for key, now in to_dict(config)["model"].items():
        before = then["model"].get(key, now)
        if before != now:
            raise ConfigError(
                f"model.{key}={now}: {path} was trained with {before}; set it back, or choose another name"
            )
    if bool(then["optim"]["ema_decay"]) != bool(config.optim.ema_decay):
        raise ConfigError(
            f"optim.ema_decay={config.optim.ema_decay}: {path} was trained with {then['optim']['ema_decay']}; an "
            "average cannot be started or dropped in between; set it back, or choose another name"
        )
    seconds = float(content["training"]["seconds"])
    return ResumePoint(newest.path, int(content["global_step"]), seconds, is_validation_due(content))
