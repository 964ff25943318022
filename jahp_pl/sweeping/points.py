"""The points of a sweep: the values, command and configuration of each run, and its state."""

from __future__ import annotations

import difflib
import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from jahp_pl.config import Config, ConfigError, current_name
from jahp_pl.model_io.checkpoint import HYPER_PARAMETERS, RunCounters, read_newest
from jahp_pl.model_io.checkpoint_files import CHECKPOINTS
from jahp_pl.setting_changes import find_changes
from jahp_pl.settings import load_config
from jahp_pl.sweeping import SweepError
from jahp_pl.sweeping.file import SweepFile
from jahp_pl.sweeping.parameters import Value
from jahp_pl.training import METRICS_FILE
from jahp_pl.training.metric_names import logged_names
from jahp_pl.training.metrics_file import number_of, read_rows

WANDB_MODE = "wandb.mode="
"""Beginning of the argument that turns W&B on or off."""
_ATTEMPTS = 100
"""Number of consecutive draws without a new point after which all points are assumed to have been drawn."""


class SweepPoint(NamedTuple):
    """One run of a sweep."""

    values: Mapping[str, Value]
    """Values of the swept settings by dotted key."""
    arguments: tuple[str, ...]
    """Arguments of `jahp train`."""
    config: Config
    """The resulting configuration."""

    @property
    def name(self) -> str:
        """Name of the run and its folder."""
        return self.config.name


def make_point(sweep: SweepFile, values: Mapping[str, Value], overrides: Sequence[str] = ()) -> SweepPoint:
    """Create the run with these values; W&B is disabled unless `overrides` enable it.

    If the command does not set the run's name, it is built from the sweep file's name and the values.

    Args:
        sweep: sweep file.
        values: one value for each of its parameters, by dotted key.
        overrides: further arguments of `jahp train`, which come last.

    Raises:
        SweepError: if a value is not valid for its setting.
    """
    mode = [] if any(word.startswith(WANDB_MODE) for word in overrides) else [f"{WANDB_MODE}disabled"]
    settings = [word for word in sweep.settings(values) if not word.startswith(WANDB_MODE)]
    arguments = [*settings, *mode, *overrides]
    if not any(word.startswith("name=") for word in arguments):
        arguments.append(f"name={_default_name(sweep.path.stem, values)}")
    try:
        return SweepPoint(values, tuple(arguments), load_config(*arguments))
    except ConfigError as error:
        raise SweepError(f"{sweep.path}: {error}") from None


def check_sweep(sweep: SweepFile, overrides: Sequence[str] = ()) -> None:
    """Check the extreme points of the search space before anything runs.

    Raises:
        SweepError: if an override changes a swept setting, a value is invalid, the metric is never logged, points
            would have the same name, or runs would have different output folders.
    """
    keys = [current_name(parameter.key) for parameter in sweep.parameters]
    if swept := [word for word in overrides if current_name(word.removeprefix("--").split("=", 1)[0]) in keys]:
        raise SweepError(f"{swept[0]}: is swept by {sweep.path}; leave it out")
    base = {parameter.key: parameter.extremes()[0] for parameter in sweep.parameters}
    start = make_point(sweep, base, overrides)
    _check_metric(sweep, start.config)
    names = {start.name}
    for parameter in sweep.parameters:
        for value in parameter.extremes()[1:]:
            point = make_point(sweep, base | {parameter.key: value}, overrides)
            if point.name in names:
                raise SweepError(
                    f"{sweep.path}: {parameter.key}={value} is not visible in the name {point.name}, so runs would "
                    f"share a folder; write ${{{parameter.key}}} into name=... of the command"
                )
            names.add(point.name)
            if point.config.output_dir != start.config.output_dir:
                raise SweepError(f"{sweep.path}: output_dir must be the same for all points; use no swept value in it")
            _check_metric(sweep, point.config)


def grid_points(sweep: SweepFile, overrides: Sequence[str] = ()) -> list[SweepPoint]:
    """Return all combinations of values, at most `run_cap`; the last parameter varies fastest.

    Raises:
        SweepError: as for `make_point`; also if two points have the same name.
    """
    number = sweep.max_points()  # no more values of any parameter can occur
    listed = [[p.nth(index) for index in range(min(number, p.num_values or 0))] for p in sweep.parameters]
    keys = [parameter.key for parameter in sweep.parameters]
    combinations = itertools.islice(itertools.product(*listed), number)
    return check_distinct(make_point(sweep, dict(zip(keys, values, strict=True)), overrides) for values in combinations)


def random_points(sweep: SweepFile, overrides: Sequence[str] = ()) -> list[SweepPoint]:
    """Draw `run_cap` different random points, or all if there are fewer; every session draws the same points.

    Raises:
        SweepError: as for `make_point`; also if two points have the same name.
    """
    chosen: dict[str, Mapping[str, Value]] = {}
    for number in range(sweep.run_cap or 0):
        for attempt in range(_ATTEMPTS):
            source = random.Random(f"point {number}, attempt {attempt}")
            values = {parameter.key: parameter.draw(source) for parameter in sweep.parameters}
            if repr(values) not in chosen:
                chosen[repr(values)] = values
                break
        else:
            break
    return check_distinct(make_point(sweep, values, overrides) for values in chosen.values())


def check_distinct(points: Iterator[SweepPoint]) -> list[SweepPoint]:
    """Check that all points have different names, and return them as a list.

    Raises:
        SweepError: if two have the same name.
    """
    by_name: dict[str, SweepPoint] = {}
    for point in points:
        if point.name in by_name:
            raise SweepError(
                f"two points are called {point.name}: {_words(by_name[point.name].values)} and {_words(point.values)}; "
                "include all swept values in name=... of the command"
            )
        by_name[point.name] = point
    return list(by_name.values())


def _check_metric(sweep: SweepFile, config: Config) -> None:
    """Refuse a metric that the run will not log."""
    names = logged_names(config)
    if sweep.metric is None or sweep.metric in names:
        return
    close = difflib.get_close_matches(sweep.metric, names, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}?" if close else f"logged are {', '.join(names)}"
    if sweep.metric.startswith("val/") and not config.data.val:
        hint = "data.val is empty, so nothing is validated"
    raise SweepError(f"{sweep.path}: metric.name={sweep.metric}: {config.name} never logs it; {hint}")


def _default_name(stem: str, values: Mapping[str, Value]) -> str:
    """Build a folder name from the sweep file's name and the values."""
    parts = [f"{key.rsplit('.', 1)[-1]}{value}" for key, value in values.items()]
    return "-".join(re.sub(r"[^\w.+-]+", "_", part).strip("_") for part in (stem, *parts))


def _words(values: Mapping[str, Value]) -> str:
    """Format values as on the command line."""
    return " ".join(f"{key}={value}" for key, value in values.items())


PointState = Literal["waiting", "running", "done", "failed"]
"""State of a point; waiting points have not started or were interrupted."""


@dataclass
class SweepEntry:
    """Point of a running sweep with its state and results so far; one row of the table."""

    point: SweepPoint
    state: PointState = "waiting"
    steps: int = 0
    """Number of optimizer steps over all sessions."""
    seconds: float = 0.0
    """Training time over all sessions, in seconds."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Last value of each metric, by name."""
    error: str = ""
    """One-line reason if the point failed, otherwise empty."""


def score(entry: SweepEntry, sweep: SweepFile) -> float | None:
    """Return a finished point's value of the sweep's metric; None if it has none."""
    return entry.metrics.get(sweep.metric) if sweep.metric is not None and entry.state == "done" else None


def best(entries: Sequence[SweepEntry], sweep: SweepFile) -> SweepEntry | None:
    """Return the point with the best metric so far; None if no point has the metric."""
    sign = 1 if sweep.goal == "minimize" else -1
    scored = [(sign * value, number) for number, e in enumerate(entries) if (value := score(e, sweep)) is not None]
    return entries[min(scored)[1]] if scored else None


def has_reached_target(entries: Sequence[SweepEntry], sweep: SweepFile) -> bool:
    """Check whether a point has reached `metric.target`."""
    winner = best(entries, sweep)
    value = score(winner, sweep) if winner is not None else None
    if value is None or sweep.target is None:
        return False
    return value <= sweep.target if sweep.goal == "minimize" else value >= sweep.target


class OtherSettingsError(SweepError):
    """Error that a run has other settings than the sweep's point, so that its results do not belong to the sweep."""


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
