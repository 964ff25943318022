"""Encodes an image at one level after another until a file meets a goal, such as a size.

The secant method finds levels, see `targets.probe_levels`. A search for better latents takes most of an encoder's time.
Therefore, if its file almost meets the goal, latents that the search left nearly halfway between two integers are
rounded differently, which saves another search. Moving latents by 0.05 toward 0 makes a file about 3 %
smaller, but 0.6 % larger than other files of its quality.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jahp_pl.codec.arrays import IntArray
from jahp_pl.codec.encoder import ImageEncoder
from jahp_pl.codec.latents import Encoded, RealLatents
from jahp_pl.codec.targets import probe_levels

SHRINKAGE_MIN, SHRINKAGE_MAX = -0.02, 0.06
"""Range of `ImageEncoder.round_and_encode`'s shrinkage; growing latents costs more than shrinking them."""
MAX_TRIALS = 3
"""Maximum number of shrinkages tried after a search."""

File = Encoded[IntArray]


class Goal(NamedTuple):
    """What a file should reach."""

    value_of: Callable[[File], float]
    """Property of a file that grows with the level."""
    aim: float
    """Value to aim at."""
    is_good: Callable[[float], bool]
    """Returns whether a value is close enough."""
    shrinkage_slope: float
    """Approximate change of the value per unit of shrinkage, negative."""


class Trial(NamedTuple):
    """A file, and the value by which it is compared with a goal."""

    file: File
    value: float
    """Result of `Goal.value_of`."""


def search_levels(encoder: ImageEncoder, goal: Goal, highest: int, start: int, slope: float) -> list[Trial]:
    """Encode at different levels until a file is good or no level is left between too small and too large values.

    Args:
        encoder: encoder of the image.
        goal: what the file should reach.
        highest: highest level in steps.
        start: level to try first, in steps.
        slope: approximate increase of the value per step.

    Returns:
        The files in the order in which they were encoded; the last one is good if any is.
    """
    trials: list[Trial] = []

    def value_at(level_steps: int) -> float:
        latents = encoder.refine(level_steps)
        first = _try(encoder, goal, latents, level_steps)
        trials.append(first)
        if encoder.is_refined and not goal.is_good(first.value):
            trials.extend(_try_shrinkages(encoder, goal, latents, level_steps, first.value))
        return trials[-1].value if goal.is_good(trials[-1].value) else first.value

    probe_levels(value_at, goal.aim, highest, start, slope, goal.is_good)
    return trials


def _try_shrinkages(
    encoder: ImageEncoder, goal: Goal, latents: RealLatents, level_steps: int, first: float
) -> list[Trial]:
    """Round the result of a search with shrinkages that bring its file nearer to the goal.

    Args:
        encoder: encoder of the image.
        goal: what the file should reach.
        latents: result of the search.
        level_steps: its rate level in steps.
        first: value of its file without shrinkage.

    Returns:
        The files tried, none if the goal is too far away; the last one is good if any is.
    """
    trials: list[Trial] = []
    shrinkage = (goal.aim - first) / goal.shrinkage_slope
    while SHRINKAGE_MIN < shrinkage < SHRINKAGE_MAX and len(trials) < MAX_TRIALS:
        trials.append(_try(encoder, goal, latents, level_steps, shrinkage))
        change = trials[-1].value - first
        if goal.is_good(trials[-1].value) or change * (goal.aim - first) <= 0:
            break
        shrinkage *= (goal.aim - first) / change
    return trials


def _try(encoder: ImageEncoder, goal: Goal, latents: RealLatents, level_steps: int, shrinkage: float = 0.0) -> Trial:
    file = encoder.round_and_encode(latents, level_steps, shrinkage)
    return Trial(file, goal.value_of(file))
