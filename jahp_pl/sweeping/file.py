"""Reads a sweep file in W&B's format, and checks it before anything starts."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

from jahp_pl.config import current_name
from jahp_pl.settings import all_keys
from jahp_pl.sweeping import SweepError
from jahp_pl.sweeping.parameters import Parameter, Value
from jahp_pl.sweeping.parse_parameters import check_number, parse_parameter
from jahp_pl.sweeping.yaml_mapping import read_mapping
from jahp_pl.text import nearest_word

Method = Literal["grid", "random", "bayes"]
"""How runs are chosen: all combinations, random draws, or a search guided by the results so far."""
Goal = Literal["minimize", "maximize"]
"""Whether lower or higher values of the metric are better."""

SWEPT_VALUES = "${args_no_hyphens}"
"""Placeholder in a command, replaced by `key=value` for each parameter."""
_KEYS = (
    *("program", "name", "description", "project", "entity", "method", "metric", "parameters", "command", "run_cap"),
    "early_terminate",
)
_NOT_SWEPT = ("name", "output_dir", "resume")
_COMMANDS = (("jahp", "train"), ("-m", "jahp_pl", "train"))
_MAX_RUNS = 10_000


class SweepMetric(NamedTuple):
    """Metric by which the runs of a sweep are compared."""

    name: str
    """Its column in metrics.csv, e.g. val/loss."""
    goal: Goal = "minimize"
    target: float | None = None
    """Value that ends the sweep: once a run reaches it, no more runs start. None for no target."""

    @property
    def is_minimized(self) -> bool:
        """Whether lower values are better."""
        return self.goal == "minimize"

    def is_reached_by(self, value: float) -> bool:
        """Check whether a value is the target or better; without a target, none is."""
        if self.target is None:
            return False
        return value <= self.target if self.is_minimized else value >= self.target


class SweepFile(NamedTuple):
    """Checked content of a sweep file."""

    path: Path
    method: Method
    metric: SweepMetric | None
    """None if the sweep has none, so that no run is best."""
    parameters: tuple[Parameter, ...]
    """Swept settings, at least one."""
    command: tuple[str, ...]
    """Arguments of `jahp train`, including `SWEPT_VALUES`."""
    run_cap: int | None
    """Maximum number of runs, as given in the file; None for all runs of a grid."""
    has_early_terminate: bool
    """Whether the file requests early termination, which only W&B's server supports."""

    def max_runs(self) -> int:
        """Return the maximum number of runs: the number of combinations of values, or `run_cap` if that is less."""
        counts = [number for parameter in self.parameters if (number := parameter.num_values) is not None]
        limits = [self.run_cap] if self.run_cap is not None else []
        if len(counts) == len(self.parameters):
            limits.append(math.prod(counts))
        return min(limits)

    def settings(self, values: Mapping[str, Value]) -> list[str]:
        """Return the arguments of `jahp train` for one run, in the form that W&B's agent would pass."""
        swept = [f"{key}={value}" for key, value in values.items()]
        return [word for part in self.command for word in (swept if part == SWEPT_VALUES else [part])]


def read_sweep(path: Path) -> SweepFile:
    """Read a sweep file, and check everything that can be checked without computing its runs.

    Raises:
        SweepError: if the file cannot be read, a key or parameter does not exist, or an entry that the method needs is
            missing.
    """
    try:
        return _parse(path, read_mapping(path))
    except SweepError as error:
        raise SweepError(f"{path}: {error}") from None


def _parse(path: Path, content: dict[str, Any]) -> SweepFile:
    """Check the content of a file entry by entry.

    Raises:
        SweepError: see `read_sweep`; the message lacks the path.
    """
    if unknown := [key for key in content if key not in _KEYS]:
        raise SweepError(f"{unknown[0]}: a sweep file has no such key{_suggestion(str(unknown[0]), _KEYS)}")
    method = _method(content.get("method"))
    run_cap = content.get("run_cap")
    if run_cap is not None and (type(run_cap) is not int or run_cap < 1):
        raise SweepError(f"run_cap={run_cap}: must be a whole number of at least 1")
    if run_cap is None and method != "grid":
        raise SweepError(f"run_cap: is missing; method {method} never ends, so give the number of runs to start")
    metric = _metric(content.get("metric"))
    if method == "bayes" and metric is None:
        raise SweepError("metric: is missing; method bayes needs a metric to optimize, e.g. {name: val/loss}")
    parameters = _parameters(content.get("parameters"), method)
    command = _command(content.get("command"))
    file = SweepFile(path, method, metric, parameters, command, run_cap, bool(content.get("early_terminate")))
    if file.max_runs() > _MAX_RUNS:
        raise SweepError(f"has more than {_MAX_RUNS} runs; set run_cap to fewer, or give fewer values")
    return file


def _method(content: object) -> Method:
    for method in get_args(Method):
        if content == method:
            return cast(Method, method)
    raise SweepError(f"method={content}: must be one of {', '.join(get_args(Method))}")


def _metric(content: object) -> SweepMetric | None:
    if content is None:
        return None
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise SweepError("metric.name: is missing; give one, e.g. val/loss")
    if unknown := [key for key in content if key not in ("name", "goal", "target")]:
        raise SweepError(f"metric.{unknown[0]}: no such key; valid keys: name, goal, target")
    goal, target = content.get("goal", "minimize"), content.get("target")
    if goal not in get_args(Goal):
        raise SweepError(f"metric.goal={goal}: must be minimize or maximize")
    if target is not None:
        check_number("metric.target", target)
    return SweepMetric(content["name"], goal, target)


def _parameters(content: object, method: Method) -> tuple[Parameter, ...]:
    """Parse the swept settings, each of which must exist."""
    if not isinstance(content, dict) or not content:
        raise SweepError("parameters: has no settings to sweep; add at least one")
    known = all_keys()
    for key in content:
        if key in _NOT_SWEPT:
            raise SweepError(f"parameters.{key}: cannot be swept; set it in the command, with ${{...}} for values")
        if (current := current_name(str(key))) != key and current in content:
            raise SweepError(f"parameters.{key}: is {current}; keep one of them")
        is_nested = isinstance(content[key], dict) and "parameters" in content[key]
        if current not in known and not is_nested:
            hint = _suggestion(str(key), tuple(known)) or "; `jahp train --keys` lists all"
            raise SweepError(f"parameters.{key}: no such setting{hint}")
    parameters = tuple(parse_parameter(key, entry) for key, entry in content.items())
    endless = [p.key for p in parameters if p.num_values is None]
    if method == "grid" and endless:
        raise SweepError(f"parameters.{endless[0]}: has no finite grid; give values, or distribution: q_uniform")
    return parameters


def _command(content: object) -> tuple[str, ...]:
    """Return the arguments after `train`.

    W&B's default command passes `--key=value` to `program`, so a command is required.
    """
    remedy = f"it must run `python -m jahp_pl train ... {SWEPT_VALUES}`, see sweeps/lambda.yaml"
    if not content:
        raise SweepError(f"command: is missing; {remedy}")
    if not isinstance(content, list) or not all(isinstance(word, str | int | float) for word in content):
        raise SweepError(f"command: must be a list of words; {remedy}")
    words = [re.sub(r"\$\{envvar:([A-Z0-9_]*)\}", _environment_value, str(word)) for word in content]
    start = next((i + len(c) for c in _COMMANDS for i in range(len(words)) if tuple(words[i : i + len(c)]) == c), None)
    if start is None:
        raise SweepError(f"command: does not train; {remedy}")
    arguments = words[start:]
    if foreign := [word for word in arguments if word.startswith("${") and word != SWEPT_VALUES]:
        raise SweepError(f"command: {foreign[0]} is not supported by `jahp train`; {remedy}")
    if arguments.count(SWEPT_VALUES) != 1:
        raise SweepError(f"command: must contain {SWEPT_VALUES} once; {remedy}")
    return tuple(arguments)


def _environment_value(match: re.Match[str]) -> str:
    return os.environ.get(match[1], match[1])


def _suggestion(word: str, known: tuple[str, ...]) -> str:
    meant = nearest_word(word, known)
    return f"; did you mean {meant}?" if meant is not None else ""
