"""The runs of a sweep: the values, command and configuration of each."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jahp_pl.config import Config, ConfigError, current_name
from jahp_pl.settings import load_config
from jahp_pl.sweeping import SweepError
from jahp_pl.sweeping.file import SweepFile
from jahp_pl.sweeping.parameters import Value
from jahp_pl.text import nearest_word
from jahp_pl.training.metric_names import logged_names

WANDB_MODE = "wandb.mode="
"""Beginning of the argument that turns W&B on or off."""
_ATTEMPTS = 100
"""Number of consecutive draws without new values after which all values are assumed to have been drawn."""


class SweepRun(NamedTuple):
    """One run of a sweep file."""

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


def make_run(file: SweepFile, values: Mapping[str, Value], overrides: Sequence[str] = ()) -> SweepRun:
    """Create the run with these values; W&B is disabled unless `overrides` enable it.

    If the command does not set the run's name, it is built from the sweep file's name and the values.

    Args:
        file: sweep file.
        values: one value for each of its parameters, by dotted key.
        overrides: further arguments of `jahp train`, which come last.

    Raises:
        SweepError: if a value is not valid for its setting.
    """
    mode = [] if any(word.startswith(WANDB_MODE) for word in overrides) else [f"{WANDB_MODE}disabled"]
    settings = [word for word in file.settings(values) if not word.startswith(WANDB_MODE)]
    arguments = [*settings, *mode, *overrides]
    if not any(word.startswith("name=") for word in arguments):
        arguments.append(f"name={_default_name(file.path.stem, values)}")
    try:
        return SweepRun(values, tuple(arguments), load_config(*arguments))
    except ConfigError as error:
        raise SweepError(f"{file.path}: {error}") from None


def check_sweep(file: SweepFile, overrides: Sequence[str] = ()) -> None:
    """Check the extreme values of every parameter before any run starts.

    Raises:
        SweepError: if an override changes a swept setting, a value is invalid, the metric is never logged, or runs
            would have equal names or different output folders.
    """
    keys = [current_name(parameter.key) for parameter in file.parameters]
    if swept := [word for word in overrides if current_name(word.removeprefix("--").split("=", 1)[0]) in keys]:
        raise SweepError(f"{swept[0]}: is swept by {file.path}; leave it out")
    base = {parameter.key: parameter.extremes()[0] for parameter in file.parameters}
    start = make_run(file, base, overrides)
    _check_metric(file, start.config)
    names = {start.name}
    for parameter in file.parameters:
        for value in parameter.extremes()[1:]:
            run = make_run(file, base | {parameter.key: value}, overrides)
            if run.name in names:
                raise SweepError(
                    f"{file.path}: {parameter.key}={value} is not visible in the name {run.name}, so runs would "
                    f"share a folder; write ${{{parameter.key}}} into name=... of the command"
                )
            names.add(run.name)
            if run.config.output_dir != start.config.output_dir:
                raise SweepError(f"{file.path}: output_dir must be the same for all runs; use no swept value in it")
            _check_metric(file, run.config)


def grid_runs(file: SweepFile, overrides: Sequence[str] = ()) -> list[SweepRun]:
    """Return all combinations of values, at most `run_cap`; the last parameter varies fastest.

    Raises:
        SweepError: as for `make_run`; also if two runs have the same name.
    """
    number = file.max_runs()  # no more values of any parameter can occur
    listed = [[p.nth(index) for index in range(min(number, p.num_values or 0))] for p in file.parameters]
    keys = [parameter.key for parameter in file.parameters]
    combinations = itertools.islice(itertools.product(*listed), number)
    return check_distinct(make_run(file, dict(zip(keys, values, strict=True)), overrides) for values in combinations)


def random_runs(file: SweepFile, overrides: Sequence[str] = ()) -> list[SweepRun]:
    """Draw `run_cap` different random runs, or all if there are fewer; every session draws the same runs.

    Raises:
        SweepError: as for `make_run`; also if two runs have the same name.
    """
    chosen: dict[str, Mapping[str, Value]] = {}
    for number in range(file.run_cap or 0):
        for attempt in range(_ATTEMPTS):
            source = random.Random(f"point {number}, attempt {attempt}")
            values = {parameter.key: parameter.draw(source) for parameter in file.parameters}
            if repr(values) not in chosen:
                chosen[repr(values)] = values
                break
        else:
            break
    return check_distinct(make_run(file, values, overrides) for values in chosen.values())


def check_distinct(runs: Iterator[SweepRun]) -> list[SweepRun]:
    """Check that all runs have different names, and return them as a list.

    Raises:
        SweepError: if two have the same name.
    """
    by_name: dict[str, SweepRun] = {}
    for run in runs:
        if run.name in by_name:
            raise SweepError(
                f"two runs are called {run.name}: {_words(by_name[run.name].values)} and {_words(run.values)}; "
                "include all swept values in name=... of the command"
            )
        by_name[run.name] = run
    return list(by_name.values())


def _check_metric(file: SweepFile, config: Config) -> None:
    """Refuse a metric that the run will not log."""
    names = logged_names(config)
    if file.metric is None or file.metric.name in names:
        return
    meant = nearest_word(file.metric.name, names)
    hint = f"did you mean {meant}?" if meant is not None else f"logged metrics: {', '.join(names)}"
    if file.metric.name.startswith("val/") and not config.data.val:
        hint = "data.val is empty, so nothing is validated"
    raise SweepError(f"{file.path}: metric.name={file.metric.name}: {config.name} never logs it; {hint}")


def _default_name(stem: str, values: Mapping[str, Value]) -> str:
    """Build a folder name from the sweep file's name and the values."""
    parts = [f"{key.rsplit('.', 1)[-1]}{value}" for key, value in values.items()]
    return "-".join(re.sub(r"[^\w.+-]+", "_", part).strip("_") for part in (stem, *parts))


def _words(values: Mapping[str, Value]) -> str:
    """Format values as on the command line."""
    return " ".join(f"{key}={value}" for key, value in values.items())
