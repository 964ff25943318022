"""How far a point has come, by what is in its run folder: the last checkpoint and metrics.csv."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import NamedTuple

from jahp_pl.checkpoint import HYPER_PARAMETERS, is_validation_due, read_newest
from jahp_pl.config import Config
from jahp_pl.setting_changes import changes
from jahp_pl.sweeping import SweepError


class OtherSettingsError(SweepError):
    """A run that was trained with other settings than a sweep asks for, so that its figures are none of this sweep."""


class Standing(NamedTuple):
    """Of a run, over all its sessions."""

    steps: int
    """Optimizer steps in the last checkpoint; 0 without one."""
    seconds: float
    """Trained until then."""
    is_finished: bool
    """Has used up its steps or its time, and made its last validation."""


def look(config: Config) -> Standing:
    """Read the last checkpoint of a run.

    Raises:
        CheckpointError: it cannot be read.
        OtherSettingsError: it was trained with other settings than these, or for longer.
    """
    newest = read_newest(config.run_dir / "checkpoints")
    if newest is None:
        return Standing(0, 0.0, is_finished=False)
    path, content = newest.path, newest.content
    steps, seconds = int(content["global_step"]), float(content["training"]["seconds"])
    if changed := changes(content[HYPER_PARAMETERS], config):
        raise OtherSettingsError(
            f"{path}: was trained with {', '.join(map(str, changed))}; delete its folder, or choose another "
            "output_dir=..."
        )
    if steps > config.trainer.max_steps:
        raise OtherSettingsError(
            f"{path}: has {steps} steps, more than trainer.max_steps={config.trainer.max_steps}; delete its folder, or "
            "choose another output_dir=..."
        )
    return Standing(steps, seconds, config.trainer.is_over(steps, seconds) and not is_validation_due(content))


def last_values(run_dir: Path) -> dict[str, float]:
    """The last finite value of each column of metrics.csv, `step` among them; empty before the first row."""
    path = run_dir / "metrics.csv"
    values: dict[str, float] = {}
    if not path.exists():
        return values
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if (number := _number(text)) is not None and name is not None:
                    values[name] = number
    return values


def _number(text: object) -> float | None:
    """A finite number in a cell, if that is what it holds; a row that is being written may be cut short."""
    try:
        number = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
