"""Targets that a caller may set for a file of a variable-rate model, and the search for the matching level.

Rate and PSNR grow with the level, and the log rate is nearly linear in it, so a bracketed secant method finds a level
in a few steps. Each step costs one entropy pass, or one synthesis for a PSNR, but never another analysis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

from jahp_pl.codec.level_steps import highest_level_steps, to_level_steps
from jahp_pl.errors import JahpError

DEFAULT_QUALITY = 60.0
"""Quality of a variable-rate model if no target is set."""
MAX_PROBES = 20
"""Maximum number of probes per search; three or four are usual."""
MAX_CORRECTION = 3
"""Largest factor by which two probes on one side of the aim correct the given slope."""
MAX_SECANTS = 6
"""Number of probes after which the search bisects."""
MAX_NUMBER = 1e18
"""Largest number in a target. Whole numbers in Python may be too large for a float."""


class TargetError(JahpError, ValueError):
    """An invalid target, or one that a model cannot meet; the message says what is possible."""


@dataclass(frozen=True)
class Target:
    """Target of a file: at most one field is set.

    Raises:
        TargetError: if two fields are set, or one is out of range.
    """

    quality: float | None = None
    """From 1 (smallest files) to 100."""
    bpp: float | None = None
    """Bits per pixel of the whole file, met within 1 %."""
    size: int | None = None
    """Bytes of the whole file, never exceeded."""
    psnr: float | None = None
    """Minimum PSNR of the decoded 8-bit image, in dB."""
    level: float | None = None
    """Level of the model, from 0 to its number of levels minus 1."""

    def __post_init__(self) -> None:
        given = [name for name in (field.name for field in fields(self)) if getattr(self, name) is not None]
        for name in given:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TargetError(f"{name} {value!r}: must be a number")
            if MAX_NUMBER < abs(value) < math.inf:
                raise TargetError(f"{name}: must be at most {MAX_NUMBER:g}")
        if len(given) > 1:
            raise TargetError(f"{' and '.join(given)}: cannot be combined; give only one of them")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise TargetError(f"quality {self.quality:g}: must be from 1 (smallest files) to 100")
        for name in ("bpp", "size", "psnr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise TargetError(f"{name} {value:g}: must be positive and finite")

    @property
    def is_given(self) -> bool:
        """Whether any field is set."""
        return self != Target()


def check_target(target: Target, num_levels: int) -> None:
    """Refuse targets that a model does not support.

    Raises:
        TargetError: if a single-rate model gets a target, or the model does not have the level.
    """
    if num_levels == 1 and target.is_given:
        raise TargetError(
            "this model has a single rate; quality, bpp, size and psnr need a variable-rate model, such as a bundled "
            "one"
        )
    if target.level is not None and not 0 <= target.level <= num_levels - 1:
        raise TargetError(f"level {target.level:g}: must be from 0 to {num_levels - 1}, the levels of this model")


def level_steps_of(target: Target, num_levels: int) -> int | None:
    """Return the level that a target names directly, by level or quality, in steps.

    Return None if the level has to be searched for. A target without any field means `DEFAULT_QUALITY`.
    """
    if target.level is not None:
        return to_level_steps(target.level)
    if target.bpp is not None or target.size is not None or target.psnr is not None:
        return None
    quality = DEFAULT_QUALITY if target.quality is None else target.quality
    return round((quality - 1) / 99 * highest_level_steps(num_levels))


def quality_of(level: float, num_levels: int) -> float:
    """Convert a level, from 0 to `num_levels` - 1, to a quality from 1 to 100."""
    return 1 + 99 * level / (num_levels - 1)


class Probe(NamedTuple):
    """A level that was tried, and its value."""

    level_steps: int
    value: float
    """Value of the searched function at this level."""


def probe_levels(
    value_at: Callable[[int], float],
    aim: float,
    highest: int,
    start: int,
    slope: float,
    is_good: Callable[[float], bool],
) -> list[Probe]:
    """Try levels until one is good or no untried level is left in the bracket. All levels are in steps.

    Args:
        value_at: increasing function of the level.
        aim: requested value.
        highest: highest level; the lowest is 0.
        start: level to try first.
        slope: approximate increase of the value per step.
        is_good: returns whether a value is close enough.

    Returns:
        All levels tried, sorted by level.
    """
    probes: dict[int, float] = {}
    below, above, tried = -1, highest + 1, min(max(start, 0), highest)
    given, previous = slope, tried
    while above - below > 1 and len(probes) < MAX_PROBES:
        probes[tried] = value_at(tried)
        if is_good(probes[tried]):
            break
        below, above = (tried, above) if probes[tried] <= aim else (below, tried)
        if below in probes and above in probes:
            slope = max((probes[above] - probes[below]) / (above - below), 1e-12)
        elif previous != tried:  # both on one side of the aim, so this slope is trusted less
            secant = (probes[tried] - probes[previous]) / (tried - previous)
            slope = min(max(secant, given / MAX_CORRECTION), given * MAX_CORRECTION)
        previous = tried
        guess = tried + round((aim - probes[tried]) / slope)  # where the secant, or the given slope, reaches the aim
        if len(probes) >= MAX_SECANTS:
            guess = (below + above) // 2
        tried = min(max(guess, below + 1), above - 1)
    return [Probe(level_steps, probes[level_steps]) for level_steps in sorted(probes)]
