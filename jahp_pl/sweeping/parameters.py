"""The values that a swept setting may take: a list of choices, or a range of numbers."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

Value = str | int | float | bool | list[Any]
"""Value of one setting."""

DIGITS = 4
"""Number of significant digits of drawn numbers, small enough for readable names."""

_LARGEST = 1e300  # so that differences are finite


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
        return is_number(value) and self.low <= value <= self.high

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


def is_number(value: object) -> TypeGuard[int | float]:
    """Check whether a value is a number rather than a truth value, and neither NaN nor too large to subtract."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
