"""Checks a run folder after a kill, and at the end of the run."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from jahp_pl.config import Config
from jahp_pl.model_io.checkpoint import CheckpointError, RunCounters, read_checkpoint
from jahp_pl.model_io.checkpoint_files import BEST, CHECKPOINTS, LAST

QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""97.5 % quantiles of Student's t, by degrees of freedom."""


class RunFolderState(NamedTuple):
    """State of a run folder after a kill."""

    step: int
    """Step of last.ckpt; 0 without one."""
    validation_due: bool
    """Whether a validation after that step started but did not finish."""
    num_checkpoints: int
    """Number of readable checkpoints."""
    num_leftovers: int
    """Number of temporary files that killed processes left."""
    unreadable: list[str]
    """Name and error of each unreadable checkpoint."""


def read_state(config: Config) -> RunFolderState:
    """Read every checkpoint of a run."""
    folder = config.run_dir / CHECKPOINTS
    unreadable, contents = [], {}
    for path in sorted(folder.glob("*.ckpt")):
        try:
            contents[path.name] = read_checkpoint(path)
        except CheckpointError as error:
            unreadable.append(f"{path.name}: {str(error).removeprefix(f'{path}: ')}")
    last = contents.get(LAST)
    return RunFolderState(
        step=last["global_step"] if last is not None else 0,
        validation_due=last is not None and RunCounters.read(last).validation_due,
        num_checkpoints=len(contents),
        num_leftovers=len(list(config.run_dir.rglob(".*.part"))),
        unreadable=unreadable,
    )


def faults_of_finished(config: Config) -> list[str]:
    """Describe the faults of a finished run, one string per fault."""
    with (config.run_dir / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = config.trainer.max_steps
    every = {
        "train/loss": list(range(config.trainer.log_every_steps, steps + 1, config.trainer.log_every_steps)),
        "val/loss": list(range(config.trainer.val_every_steps, steps + 1, config.trainer.val_every_steps)),
    }
    every["val/file_bpp"] = every["val/loss"]
    faults = []
    for column, expected in every.items():
        found = [int(row["step"]) for row in rows if row[column]]
        if found != expected:
            faults.append(f"metrics.csv has {column} at steps {found} instead of {expected}")
    state = read_state(config)
    faults += state.unreadable
    if state.step != steps:
        faults.append(f"ended at step {state.step} instead of {steps}")
    if state.validation_due:
        faults.append("the last validation is missing")
    if state.num_leftovers:
        faults.append(f"{state.num_leftovers} temporary files are left at the end")
    losses = {int(row["step"]): float(row["val/loss"]) for row in rows if row["val/loss"]}
    best = read_checkpoint(config.run_dir / CHECKPOINTS / BEST)["global_step"]
    if best != min(losses, key=lambda step: losses[step]):
        faults.append(f"best.ckpt is of step {best}, which does not have the lowest loss: {losses}")
    return faults


def final_loss(config: Config) -> float:
    """Return val/loss of the last validation."""
    content = read_checkpoint(config.run_dir / CHECKPOINTS / LAST)
    metrics = next(state["metrics"] for state in content["callbacks"].values() if "metrics" in state)
    return float(metrics["val/loss"])


def judge(loss: float, others: Sequence[float]) -> dict[str, Any]:
    """Check whether a loss lies inside Student's 95 % prediction interval for another run like `others`."""
    mean, deviation = statistics.mean(others), statistics.stdev(others)
    reach = QUANTILES[len(others) - 1] * deviation * math.sqrt(1 + 1 / len(others))
    return {
        "loss": loss,
        "uninterrupted": list(others),
        "mean": mean,
        "standard_deviation": deviation,
        "interval_of_95_percent": [mean - reach, mean + reach],
        "inside": abs(loss - mean) <= reach,
        "between_lowest_and_highest": min(others) <= loss <= max(others),
    }
