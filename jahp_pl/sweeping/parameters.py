"""Parses a swept setting: the values that W&B's keywords (`values`, `min`, `max`, `distribution`, `q`) allow."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeGuard

from jahp_pl.sweeping import SweepError

Value = str | int | float | bool | list[Any]
"""Value of one setting."""
ParameterKind = Literal["choice", "integer", "real"]

DIGITS = 4
"""Number of significant digits of drawn numbers, small enough for readable names."""

_RANGES: dict[str, tuple[ParameterKind, bool, bool]] = {
    # distribution: kind, logarithmic, in steps of q
    "int_uniform": ("integer", False, False),
    "uniform": ("real", False, False),
    "q_uniform": ("real", False, True),
    "log_uniform_values": ("real", True, False),
}
_LARGEST = 1e300  # so that differences are finite
_MAX_STEPS = 2**53  # floats do not distinguish larger whole numbers
_CHOICES = ("constant", "categorical")
_KEYS = ("value", "values", "probabilities", "distribution", "min", "max", "q")


class Parameter(NamedTuple):
    """Values that one setting may take."""

    key: str
    """Dotted key, as on the command line."""
    kind: ParameterKind
    choices: Sequence[Value]
    """At least one value if the kind is choice, otherwise empty."""
    weights: Sequence[float] | None
    """Probabilities of the choices in random draws; None if all are equally likely."""
    low: float
    """Smallest number of kind integer or real."""
    high: float
    """Largest number of kind integer or real, above `low`."""
    is_log: bool
    """Whether the logarithm is drawn uniformly."""
    step: float | None
    """Distance between adjacent values of kind real; None for any value."""

    @property
    def num_values(self) -> int | None:
        """Number of different values; None if it is infinite."""
        if self.kind == "choice":
            return len(self.choices)
        if self.kind == "integer":
            return int(self.high) - int(self.low) + 1
        return None if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def nth(self, index: int) -> Value:
        """Return the value with an index from 0 to `num_values` - 1, in the order of a grid."""
        if self.kind == "choice":
            return self.choices[index]
        if self.kind == "integer":
            return int(self.low) + index
        return self.rounded(self.low + index * (self.step or 0.0))

    def contains(self, value: object) -> bool:
        """Check whether `draw` could return this value."""
        if self.kind == "choice":
            return value in self.choices
        if not _is_number(value) or not self.low <= value <= self.high:
            return False
        if self.kind == "integer":
            return value == round(value)
        if self.step is None or self.num_values is None:
            return True
        return value == self.nth(min(round((value - self.low) / self.step), self.num_values - 1))

    def extremes(self) -> list[Value]:
        """Return all choices, or both ends of the range; if these are valid settings, so are all values."""
        return list(self.choices) if self.kind == "choice" else [self.rounded(self.low), self.rounded(self.high)]

    def draw(self, source: random.Random) -> Value:
        """Draw one random value."""
        if self.kind == "choice":
            return source.choices(self.choices, self.weights)[0]
        if (number := self.num_values) is not None:
            return self.nth(source.randrange(number))  # draws in the same order as `choice` would
        if self.is_log:
            return self.rounded(math.exp(source.uniform(math.log(self.low), math.log(self.high))))
        return self.rounded(source.uniform(self.low, self.high))

    def rounded(self, number: float) -> Value:
        """Round a number to a valid value within the range: a whole number, or a real number of few digits."""
        if self.kind == "integer":
            return round(number)
        digits = DIGITS if self.step is None else 10  # for multiples of a step, only binary noise is removed
        return float(min(self.high, max(self.low, float(f"{number:.{digits}g}"))))


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
        raise SweepError(f"{where}.{unknown[0]}: no such key; known are {', '.join(_KEYS)}")
    if "value" in content or "values" in content:
        return _choice(key, where, content)
    return _range(key, where, content)


def _choice(key: str, where: str, content: Mapping[str, Any]) -> Parameter:
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
    weights = content.get("probabilities")
    if weights is not None:
        is_right = isinstance(weights, list) and len(weights) == len(choices) and all(map(_is_number, weights))
        if not is_right or min(weights) < 0 or not math.isclose(sum(weights), 1, abs_tol=1e-6):
            raise SweepError(f"{where}.probabilities: must be one number per value, with sum 1")
    return Parameter(key, "choice", choices, weights, 0.0, 0.0, is_log=False, step=None)


def _range(key: str, where: str, content: Mapping[str, Any]) -> Parameter:
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
    if not isinstance(distribution, str) or distribution not in _RANGES:
        known = ", ".join((*_CHOICES, *_RANGES))
        raise SweepError(f"{where}.distribution={distribution}: is not supported; use one of {known}")
    kind, is_log, is_stepped = _RANGES[distribution]
    if not low < high:
        raise SweepError(f"{where}: min={low} must be below max={high}")
    if kind == "integer" and not is_whole:
        raise SweepError(f"{where}: {distribution} needs whole numbers for min and max")
    if is_log and low <= 0:
        raise SweepError(f"{where}.min={low}: must be positive for {distribution}")
    if "q" in content and not is_stepped:
        raise SweepError(f"{where}.q: is only for distribution: q_uniform; remove it")
    step = float(content.get("q", 1.0)) if is_stepped else None
    if step is not None and not 0 < step <= high - low:
        raise SweepError(f"{where}.q={step:g}: must be positive and at most max - min")
    if step is not None and (high - low) / step > _MAX_STEPS:
        raise SweepError(
            f"{where}.q={step:g}: is too small relative to max - min to distinguish its multiples; enlarge q"
        )
    return Parameter(key, kind, (), None, low, high, is_log, step)


def check_number(where: str, value: object) -> None:
    """Refuse a value that YAML does not read as a finite number.

    Raises:
        SweepError: with `where`, the name of the entry.
    """
    if not _is_number(value):
        is_word = isinstance(value, str)
        hint = " (YAML reads 1e-4 and 1.0e4 as words; write 1.0e-4 and 1.0e+4)" if is_word else ""
        raise SweepError(f"{where}={value}: must be a number{hint}")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_word(value: object) -> bool:
    """Check whether a value can be passed as a process argument and stored in JSON."""
    return value.isprintable() if isinstance(value, str) else isinstance(value, int | float)
