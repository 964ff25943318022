"""Converts rate levels between their two units. Does not import torch.

A `level` is a number from 0 to the model's number of levels minus 1. A file stores it as `level_steps`, a whole number
of steps of 1 / `STEPS_PER_LEVEL`. A codec therefore encodes and searches in steps, and passes levels to its networks. A
single-rate model has neither: both are None.
"""

from __future__ import annotations

from typing import overload

STEPS_PER_LEVEL = 256
"""Steps between two adjacent rate levels."""


def to_level_steps(level: float) -> int:
    """Round a level to whole steps."""
    return round(level * STEPS_PER_LEVEL)


@overload
def to_level(level_steps: int) -> float: ...
@overload
def to_level(level_steps: int | None) -> float | None: ...
def to_level(level_steps: int | None) -> float | None:
    """Convert steps to a level; None stays None."""
    return None if level_steps is None else level_steps / STEPS_PER_LEVEL


def highest_level_steps(num_levels: int) -> int:
    """Return the highest level of a model in steps; 0 for a single-rate model."""
    return (num_levels - 1) * STEPS_PER_LEVEL
