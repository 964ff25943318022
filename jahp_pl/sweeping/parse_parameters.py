"""Parses the entries of `parameters` in a sweep file (`values`, `min`, `max`, `distribution`, `q`), as W&B does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jahp_pl.sweeping import SweepError
from jahp_pl.sweeping.parameters import Choice, IntegerRange, Parameter, Range, RealRange, SteppedRange, is_number

_KEYS = ("value", "values", "probabilities", "distribution", "min", "max", "q")
_CHOICES = ("constant", "categorical")
_RANGES = ("int_uniform", "uniform", "q_uniform", "log_uniform_values")
_MAX_STEPS = 2**53  # floats do not distinguish larger whole numbers


def parse_parameter(key: str, content: object) -> Parameter:
    """Parse one entry of `parameters`.

    Args:
        key: dotted name of the setting.
        content: value of the entry.

    Raises:
        SweepError: if W&B does not know a keyword, it is not supported here, or values contradict each other.
    """
    where = f"parameters.{key}"
    if not isinstance(content, Mapping):
        raise SweepError(f"{where}: must contain value, values, or min and max")
    if "parameters" in content:
        nested = content["parameters"]
        name = next(iter(nested), "x") if isinstance(nested, Mapping) else "x"
        raise SweepError(f"{where}: is nested; write dotted keys, e.g. {key}.{name}")
    if unknown := [name for name in content if name not in _KEYS]:
        raise SweepError(f"{where}.{unknown[0]}: no such key; valid keys: {', '.join(_KEYS)}")
    if "value" in content or "values" in content:
        return _choice(key, where, content)
    return _range(key, where, content)


def _choice(key: str, where: str, content: Mapping[str, Any]) -> Choice:
    """Parse an entry with a value or a list of values."""
    name = "values" if "values" in content else "value"
    distribution = content.get("distribution", "categorical")
    if others := [word for word in content if word not in (name, "probabilities", "distribution")]:
        raise SweepError(f"{where}: has both {name} and {others[0]}; keep one of them")
    if distribution not in (*_CHOICES, "categorical_w_probabilities"):
        raise SweepError(f"{where}.distribution={distribution}: cannot be combined with {name}; remove it")
    choices = content[name] if name == "values" else [content[name]]
    if not isinstance(choices, list) or not choices:
        raise SweepError(f"{where}.values: must be a list with at least one value")
    for number, choice in enumerate(choices):
        if not all(map(_is_word, choice)) if isinstance(choice, list) else not _is_word(choice):
            remedy = "use words, numbers or lists of these"
            raise SweepError(f"{where}.{name}: {choice} cannot be passed on a command line; {remedy}")
        if any(repr(choice) == repr(other) for other in choices[:number]):
            raise SweepError(f"{where}.values: has {choice} twice; remove one")
    if (weights := content.get("probabilities")) is not None:
        is_right = isinstance(weights, list) and len(weights) == len(choices) and all(map(is_number, weights))
        if not is_right or min(weights) < 0 or not math.isclose(sum(weights), 1, abs_tol=1e-6):
            raise SweepError(f"{where}.probabilities: must be one number per value, with sum 1")
    return Choice(key, choices, weights)


def _range(key: str, where: str, content: Mapping[str, Any]) -> Range:
    """Parse an entry with min and max."""
    for name in ("min", "max"):
        if name not in content:
            raise SweepError(f"{where}.{name}: is missing; give value, values, or min and max")
    for name in ("min", "max", "q"):
        if name in content:
            check_number(f"{where}.{name}", content[name])
    low, high = content["min"], content["max"]
    is_whole = isinstance(low, int) and isinstance(high, int)
    distribution = content.get("distribution", "int_uniform" if is_whole else "uniform")
    if distribution not in _RANGES:
        known = ", ".join((*_CHOICES, *_RANGES))
        raise SweepError(f"{where}.distribution={distribution}: is not supported; use one of {known}")
    if not low < high:
        raise SweepError(f"{where}: min={low} must be below max={high}")
    if distribution == "int_uniform" and not is_whole:
        raise SweepError(f"{where}: {distribution} needs whole numbers for min and max")
    if distribution == "log_uniform_values" and low <= 0:
        raise SweepError(f"{where}.min={low}: must be positive for {distribution}")
    if distribution == "q_uniform":
        return _stepped_range(key, where, low, high, float(content.get("q", 1.0)))
    if "q" in content:
        raise SweepError(f"{where}.q: is only for distribution: q_uniform; remove it")
    if distribution == "int_uniform":
        return IntegerRange(key, low, high)
    return RealRange(key, low, high, is_log=distribution == "log_uniform_values")


def _stepped_range(key: str, where: str, low: float, high: float, step: float) -> SteppedRange:
    if not 0 < step <= high - low:
        raise SweepError(f"{where}.q={step:g}: must be positive and at most max - min")
    if (high - low) / step > _MAX_STEPS:
        raise SweepError(
            f"{where}.q={step:g}: is too small relative to max - min to distinguish its multiples; enlarge q"
        )
    return SteppedRange(key, low, high, step)


def check_number(where: str, value: object) -> None:
    """Refuse a value that YAML does not read as a finite number.

    Raises:
        SweepError: with `where`, the name of the entry.
    """
    if not is_number(value):
        is_word = isinstance(value, str)
        hint = " (YAML reads 1e-4 and 1.0e4 as words; write 1.0e-4 and 1.0e+4)" if is_word else ""
        raise SweepError(f"{where}={value}: must be a number{hint}")


def _is_word(value: object) -> bool:
    """Check whether a value can be passed as a process argument and stored in JSON."""
    return value.isprintable() if isinstance(value, str) else isinstance(value, int | float)
