"""The points of a sweep: each a set of values, the command of its run and the configuration that this makes."""

from __future__ import annotations

import difflib
import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jahp_pl.config import Config, ConfigError
from jahp_pl.settings import load
from jahp_pl.sweeping import SweepError
from jahp_pl.sweeping.file import SweepFile
from jahp_pl.sweeping.space import Value
from jahp_pl.training.names import logged_names

_ATTEMPTS = 100
"""Draws in a row that give nothing new before a space counts as used up."""


class Point(NamedTuple):
    """One run."""

    values: Mapping[str, Value]
    """Of the swept settings, by dotted key."""
    arguments: tuple[str, ...]
    """Of `jahp train`."""
    config: Config
    """What they make."""

    @property
    def name(self) -> str:
        """Of the run and its folder."""
        return self.config.name


def make_point(sweep: SweepFile, values: Mapping[str, Value], overrides: Sequence[str] = ()) -> Point:
    """The run with these values, on this machine: W&B stays off unless `overrides` turn it on.

    Where the command names no run, the name is made of the file's name and the values.

    Args:
        sweep: the file.
        values: one for each of its parameters.
        overrides: further arguments of `jahp train`, which come last.

    Raises:
        SweepError: a value that the schema of settings refuses.
    """
    arguments = [*sweep.settings(values), "wandb.mode=disabled", *overrides]
    if not any(word.startswith("name=") for word in arguments):
        arguments.append(f"name={_default_name(sweep.path.stem, values)}")
    try:
        return Point(values, tuple(arguments), load(arguments))
    except ConfigError as error:
        raise SweepError(f"{sweep.path}: {error}") from None


def check_sweep(sweep: SweepFile, overrides: Sequence[str] = ()) -> None:
    """Look at the corners of the space, before anything is run.

    Raises:
        SweepError: an override of a swept setting, a value out of the schema, a metric that no run logs, names that do
            not tell points apart, runs in several folders.
    """
    keys = [parameter.key for parameter in sweep.parameters]
    if swept := [word for word in overrides if word.removeprefix("--").split("=", 1)[0] in keys]:
        raise SweepError(f"{swept[0]}: is swept by {sweep.path}; leave it out")
    base = {parameter.key: parameter.ends()[0] for parameter in sweep.parameters}
    start = make_point(sweep, base, overrides)
    _check_metric(sweep, start.config)
    names = {start.name}
    for parameter in sweep.parameters:
        for value in parameter.ends()[1:]:
            point = make_point(sweep, base | {parameter.key: value}, overrides)
            if point.name in names:
                raise SweepError(
                    f"{sweep.path}: {parameter.key}={value} does not show in the name {point.name}, so that runs would "
                    f"share a folder; write ${{{parameter.key}}} into name=... of the command"
                )
            names.add(point.name)
            if point.config.output_dir != start.config.output_dir:
                raise SweepError(f"{sweep.path}: output_dir must be the same for all points")
            _check_metric(sweep, point.config)


def grid(sweep: SweepFile, overrides: Sequence[str] = ()) -> list[Point]:
    """All combinations, the last parameter fastest, at most `run_cap` of them.

    Raises:
        SweepError: see `make_point`; also two points of one name.
    """
    number = sweep.most_points()  # of no parameter more than its first so many values can take part
    listed = [[p.nth(index) for index in range(min(number, p.num_values or 0))] for p in sweep.parameters]
    keys = [parameter.key for parameter in sweep.parameters]
    combinations = itertools.islice(itertools.product(*listed), number)
    return distinct(make_point(sweep, dict(zip(keys, values, strict=True)), overrides) for values in combinations)


def drawn(sweep: SweepFile, overrides: Sequence[str] = ()) -> list[Point]:
    """`run_cap` different points at random, or all there are. Point i is the same in every session.

    Raises:
        SweepError: see `make_point`; also two points of one name.
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
    return distinct(make_point(sweep, values, overrides) for values in chosen.values())


def distinct(points: Iterator[Point]) -> list[Point]:
    """The same points.

    Raises:
        SweepError: two have one name.
    """
    by_name: dict[str, Point] = {}
    for point in points:
        if point.name in by_name:
            raise SweepError(
                f"two points are called {point.name}: {_words(by_name[point.name].values)} and {_words(point.values)}; "
                "let name=... of the command follow from all swept values"
            )
        by_name[point.name] = point
    return list(by_name.values())


def _check_metric(sweep: SweepFile, config: Config) -> None:
    names = logged_names(config)
    if sweep.metric is None or sweep.metric in names:
        return
    close = difflib.get_close_matches(sweep.metric, names, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}?" if close else f"logged are {', '.join(names)}"
    if sweep.metric.startswith("val/") and not config.data.val:
        hint = "data.val is empty, so nothing is validated"
    raise SweepError(f"{sweep.path}: metric.name={sweep.metric}: {config.name} never logs it; {hint}")


def _default_name(stem: str, values: Mapping[str, Value]) -> str:
    parts = [f"{key.rsplit('.', 1)[-1]}{value}" for key, value in values.items()]
    return "-".join(re.sub(r"[^\w.+-]+", "_", part).strip("_") for part in (stem, *parts))


def _words(values: Mapping[str, Value]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())
