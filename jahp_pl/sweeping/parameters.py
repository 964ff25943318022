"""Parses a swept setting: the values that W&B's keywords (`values`, `min`, `max`, `distribution`, `q`) allow."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from jahp_pl.sweeping import SweepError

Value = str | int | float | bool | list[Any]
"""Value of one setting."""

DIGITS = 4
"""Number of significant digits of drawn numbers, small enough for readable names."""

_CHOICES = ("constant", "categorical")
_RANGES = ("int_uniform", "uniform", "q_uniform", "log_uniform_values")
_LARGEST = 1e300  # so that differences are finite
_MAX_STEPS = 2**53  # floats do not distinguish larger whole numbers
_KEYS = ("value", "values", "probabilities", "distribution", "min", "max", "q")


class Parameter(ABC):
    """Values that one setting may take."""

    key: str
    """Dotted key, as on the command line."""

    @property
    @abstractmethod
    def num_values(self) -> int | None:
        """Number of different values; None if it is infinite."""

    @abstractmethod
    def nth(self, index: int) -> Value:
        """Return the value with an index from 0 to `num_values` - 1, in the order of a grid."""

    @abstractmethod
    def draw(self, source: random.Random) -> Value:
        """Draw one random value."""

    @abstractmethod
    def contains(self, value: object) -> bool:
        """Check whether `draw` could return this value."""

    @abstractmethod
    def extremes(self) -> list[Value]:
        """Return all choices, or both ends of the range; if these are valid settings, so are all values."""


@dataclass(frozen=True)
class Choice(Parameter):
    """A list of values."""

    key: str
    values: Sequence[Value]
    """At least one value."""
    weights: Sequence[float] | None
    """Probabilities of the values in random draws; None if all are equally likely."""

    @property
    def num_values(self) -> int:
        """Number of values in the list."""
        return len(self.values)

    def nth(self, index: int) -> Value:
        """See `Parameter.nth`."""
        return self.values[index]

    def draw(self, source: random.Random) -> Value:
        """See `Parameter.draw`."""
        return source.choices(self.values, self.weights)[0]

    def contains(self, value: object) -> bool:
        """See `Parameter.contains`."""
        return value in self.values

    def extremes(self) -> list[Value]:
        """Return all values."""
        return list(self.values)


@dataclass(frozen=True)
class Range(Parameter):
    """Numbers between two ends."""

    key: str
    low: float
    """Smallest number."""
    high: float
    """Largest number, above `low`."""

    def contains(self, value: object) -> TypeGuard[int | float]:
        """See `Parameter.contains`."""
        return _is_number(value) and self.low <= value <= self.high

    def extremes(self) -> list[Value]:
        """Return both ends."""
        return [self.rounded(self.low), self.rounded(self.high)]

    @abstractmethod
    def rounded(self, number: float) -> Value:
        """Round a number within the range to a valid value."""


@dataclass(frozen=True)
class IntegerRange(Range):
    """All whole numbers between two ends, which are whole numbers too."""

    @property
    def num_values(self) -> int:
        """Number of whole numbers."""
        return int(self.high) - int(self.low) + 1

    def nth(self, index: int) -> Value:
        """See `Parameter.nth`."""
        return int(self.low) + index

    def draw(self, source: random.Random) -> Value:
        """See `Parameter.draw`."""
        return self.nth(source.randrange(self.num_values))  # draws in the same order as `choice` would

    def contains(self, value: object) -> TypeGuard[int | float]:
        """See `Parameter.contains`."""
        return super().contains(value) and value == round(value)

    def rounded(self, number: float) -> Value:
        """Round to a whole number."""
        return round(number)


@dataclass(frozen=True)
class SteppedRange(Range):
    """Numbers at equal distances from the low end on."""

    step: float
    """Distance between adjacent values."""

    @property
    def num_values(self) -> int:
        """Number of values."""
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def nth(self, index: int) -> Value:
        """See `Parameter.nth`."""
        return self.rounded(self.low + index * self.step)

    def draw(self, source: random.Random) -> Value:
        """See `Parameter.draw`."""
        return self.nth(source.randrange(self.num_values))

    def contains(self, value: object) -> TypeGuard[int | float]:
        """See `Parameter.contains`."""
        if not super().contains(value):
            return False
        return value == self.nth(min(round((value - self.low) / self.step), self.num_values - 1))

    def rounded(self, number: float) -> Value:
        """Remove binary noise."""
        return _rounded(self, number, 10)


@dataclass(frozen=True)
class RealRange(Range):
    """All real numbers between two ends."""

    is_log: bool
    """Whether the logarithm is drawn uniformly."""

    @property
    def num_values(self) -> None:
        """None, because the number is infinite."""
        return None

    def nth(self, index: int) -> Value:
        """Raise an error, because a range of real numbers has no grid."""
        raise IndexError(f"{self.key} has no value number {index}, because it may take any real number in a range")

    def draw(self, source: random.Random) -> Value:
        """See `Parameter.draw`."""
        if self.is_log:
            return self.rounded(math.exp(source.uniform(math.log(self.low), math.log(self.high))))
        return self.rounded(source.uniform(self.low, self.high))

    def rounded(self, number: float) -> Value:
        """Round to `DIGITS` significant digits."""
        return _rounded(self, number, DIGITS)


def _rounded(within: Range, number: float, digits: int) -> float:
    """Round a number to significant digits, but not beyond the ends of a range."""
    return float(min(within.high, max(within.low, float(f"{number:.{digits}g}"))))


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
        is_right = isinstance(weights, list) and len(weights) == len(choices) and all(map(_is_number, weights))
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
    if not _is_number(value):
        is_word = isinstance(value, str)
        hint = " (YAML reads 1e-4 and 1.0e4 as words; write 1.0e-4 and 1.0e+4)" if is_word else ""
        raise SweepError(f"{where}={value}: must be a number{hint}")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_word(value: object) -> bool:
    """Check whether a value can be passed as a process argument and stored in JSON."""
    return value.isprintable() if isinstance(value, str) else isinstance(value, int | float)
