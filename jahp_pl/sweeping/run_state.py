"""Reads the state and the metrics of a run from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from jahp_pl.config import Config
from jahp_pl.config.changes import find_changes
from jahp_pl.model_io.checkpoint import HYPER_PARAMETERS, RunCounters, read_newest
from jahp_pl.model_io.checkpoint_files import CHECKPOINTS
from jahp_pl.sweeping import SweepError
from jahp_pl.training import METRICS_FILE
from jahp_pl.training.metrics_file import number_of, read_rows


class OtherSettingsError(SweepError):
    """Error that a run folder was trained with other settings, so that its results do not belong to the sweep."""


class RunState(NamedTuple):
    """State of a run over all its sessions."""

    steps: int
    """Number of optimizer steps up to the last checkpoint; 0 without a checkpoint."""
    seconds: float
    """Training time up to the last checkpoint, in seconds."""
    is_finished: bool
    """Whether the run's steps or time are used up and its last validation is done."""


def read_run_state(config: Config) -> RunState:
    """Read the state of a run from its last checkpoint.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
        OtherSettingsError: if the run was trained with other settings, or for more steps than the sweep asks for.
    """
    newest = read_newest(config.run_dir / CHECKPOINTS)
    if newest is None:
        return RunState(0, 0.0, is_finished=False)
    path, content = newest.path, newest.content
    steps, counters = int(content["global_step"]), RunCounters.read(content)
    if changed := find_changes(content[HYPER_PARAMETERS], config):
        raise OtherSettingsError(
            f"{path}: was trained with {', '.join(map(str, changed))}; delete its folder, or choose another "
            "output_dir=..."
        )
    if steps > config.trainer.max_steps:
        raise OtherSettingsError(
            f"{path}: has {steps} steps, more than trainer.max_steps={config.trainer.max_steps}; delete its folder, or "
            "choose another output_dir=..."
        )
    is_over = config.trainer.is_over(steps, counters.seconds)
    return RunState(steps, counters.seconds, is_over and not counters.validation_due)


def last_values(run_dir: Path) -> dict[str, float]:
    """Read the last finite value of each column of metrics.csv, including `step`; empty before the first row."""
    path = run_dir / METRICS_FILE
    values: dict[str, float] = {}
    if not path.exists():
        return values
    for row in read_rows(path):
        for name, text in row.items():
            if (number := number_of(text)) is not None:
                values[name] = number
    return values
